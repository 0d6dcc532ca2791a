"""Networks kept on disk: NAME.npz holds the weights, NAME.json what they are made of and their hash. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmgen_jax.types import Params


def digest(made_of: Mapping[str, Any], *arrays: np.ndarray) -> str:
    """sha256, in hexadecimal, of JSON-able settings and of arrays with their shapes and types."""
    hash = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for x in arrays:
        hash.update(f"{x.shape}{x.dtype.str}".encode())
        hash.update(np.ascontiguousarray(x).data)
    return hash.hexdigest()


def weights_digest(params: Params) -> str:
    flat = flatten_dict(params, sep="/")
    return digest({"names": sorted(flat)}, *(np.asarray(flat[name]) for name in sorted(flat)))


def write(path: Path, params: Params, made_of: Mapping[str, Any]) -> None:
    """Write both files whole or not at all, the JSON last: `read` looks at it first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        np.savez(Path(folder) / "new.npz", **flatten_dict(params, sep="/"))
        (Path(folder) / "new.json").write_text(json.dumps({**made_of, "sha256": weights_digest(params)}, indent=2))
        for suffix in (".npz", ".json"):
            os.replace(Path(folder) / f"new{suffix}", path.with_suffix(suffix))


def read(path: Path) -> Params | None:
    """The weights, or None if there are none or they are not those that were written."""
    try:
        sha256 = json.loads(path.with_suffix(".json").read_text())["sha256"]
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
            params = unflatten_dict(dict(file), sep="/")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return params if weights_digest(params) == sha256 else None
