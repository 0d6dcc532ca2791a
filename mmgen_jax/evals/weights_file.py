"""Weights out of files that can hold nothing but arrays: NumPy's .npz, and .safetensors.

A .safetensors file is the length of its header (8 bytes, little-endian), the header (JSON: by name the type, the shape
and where the bytes begin and end) and the bytes. Nothing in either is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
TYPES |= {"I64": np.int64, "I32": np.int32, "U8": np.uint8, "BOOL": np.bool_}
SUFFIXES = (".npz", ".safetensors")


def read_weights(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays in a file by name, and the SHA-256 of the file.

    Raises:
        ValueError: there is no such file, it is of another kind, or it is damaged.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ValueError(f"weights are read from a file that ends in {' or '.join(SUFFIXES)}, which {path} is not")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        else:
            arrays = read_safetensors(path.read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable file of arrays: {error}") from None
    with path.open("rb") as file:
        return arrays, hashlib.file_digest(file, "sha256").hexdigest()


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """The arrays in the bytes of such a file. Raises one of several errors if it is none."""
    size = int.from_bytes(content[:8], "little")
    if not 0 < size <= len(content) - 8:
        raise ValueError(f"its header would have {size} of {len(content)} bytes")
    header = json.loads(content[8 : 8 + size])
    body, arrays = memoryview(content)[8 + size :], {}
    for name, entry in header.items():
        if name != "__metadata__":
            (start, stop), dtype = entry["data_offsets"], np.dtype(TYPES[entry["dtype"]])
            if not 0 <= start <= stop <= len(body) or stop - start != dtype.itemsize * math.prod(entry["shape"]):
                raise ValueError(f"{name} would be {entry['shape']} of {dtype} in the bytes {start} to {stop}")
            arrays[name] = np.frombuffer(body[start:stop], dtype).reshape(entry["shape"])
    return arrays
