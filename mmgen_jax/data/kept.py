"""Encoded splits kept on disk: a second start reads arrays instead of decoding every example again.

A source that is read from files says what it holds in a `fingerprint`. With it, the modalities and the code that
encodes, a split has a name, and under that name it is kept:

    ~/.cache/mmgen_jax/splits/<sha256>/    values-0.npy, present-0.npy, ... in the order of the modalities
                                           crc32.json, their checksums, written last

Nothing is kept of sources without a fingerprint (arrays in memory, a user's own) nor with modalities, tokenizers or
likelihoods from outside this package: nobody could tell when they change. The folder is the user's cache folder
(`XDG_CACHE_HOME`), its `MOST` newest splits of at most `BYTES` together stay, and deleting it is safe at any time.
`MMGEN_CACHE=off` keeps nothing and reads nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmgen_jax.types import Batch, Modality, Source

MOST, BYTES = 8, 4 * 2**30
NETWORKS = ("encoder", "decoder")  # fields of modalities that do not change what is encoded
SUMS = "crc32.json"
log = logging.getLogger(__name__)


def folder(source: Source, modalities: Mapping[str, Modality], count: int) -> Path | None:
    """Where the first `count` examples, encoded, are or would be kept; None if they never are."""
    fingerprint = getattr(source, "fingerprint", None)
    if fingerprint is None or os.environ.get("MMGEN_CACHE") == "off":
        return None
    try:
        made_of = [_code(), fingerprint, count, *((name, _settings(m)) for name, m in modalities.items())]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except (TypeError, RuntimeError):  # settings that are not ours; a user without a home
        return None
    return cache / "mmgen_jax" / "splits" / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def read(path: Path, modalities: Mapping[str, Modality], count: int) -> Batch | None:
    """What is kept there, or None if nothing is or it is not what was written."""
    data = Batch({}, {})
    try:
        sums = json.loads((path / SUMS).read_text())
        for i, (name, modality) in enumerate(modalities.items()):
            data.values[name] = _array(path / f"values-{i}.npy", sums, (count, *modality.shape), modality.dtype)
            data.present[name] = _array(path / f"present-{i}.npy", sums, (count,), np.dtype(bool))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(path)  # the longest unused goes first
    return data


def write(path: Path, data: Batch) -> None:
    """Keeps `data` there if possible, whole or not at all. What goes wrong is logged and changes nothing else."""
    arrays = {}
    for i, name in enumerate(data.values):
        arrays |= {f"values-{i}.npy": data.values[name], f"present-{i}.npy": data.present[name]}
    if sum(x.nbytes for x in arrays.values()) > BYTES:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as temporary:
            _write(path, arrays, Path(temporary))
        with contextlib.suppress(OSError):  # two processes at it at once
            prune(path.parent)
    except OSError as error:
        log.warning("The encoded split is not kept for the next start: %s", error)


def prune(splits: Path) -> None:
    """Removes all but the newest: of splits, and of what a process that was killed left of one."""
    folders = sorted(splits.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for rank, path in enumerate(folders):
        total += sum(file.stat().st_size for file in path.rglob("*"))
        if rank >= MOST or total > BYTES:
            shutil.rmtree(path, ignore_errors=True)


def digest(*parts: str | bytes | np.ndarray | None) -> str | None:
    """sha256 of texts, bytes and arrays in hexadecimal; None if one of them is None."""
    if any(part is None for part in parts):
        return None
    hash = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else bytes(part)
        hash.update(b"%d:" % len(data) + data)  # with its length: "ab", "c" is not "a", "bc"
    return hash.hexdigest()


def _write(path: Path, arrays: Mapping[str, np.ndarray], temporary: Path) -> None:
    """Both renames are atomic: nobody ever sees half a split. Of two processes at once the later one's stays."""
    new = temporary / "new"
    new.mkdir()
    for name, x in arrays.items():
        np.save(new / name, x, allow_pickle=False)
    (new / SUMS).write_text(json.dumps({name: zlib.crc32(x.data) for name, x in arrays.items()}))
    if path.exists():
        os.rename(path, temporary / "old")
    os.rename(new, path)


def _array(path: Path, sums: Mapping[str, int], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array of one file. Raises ValueError, OSError or KeyError if it is not the one that was written."""
    mapped = np.lib.format.open_memmap(path, mode="r")  # compares header and size before anything is allocated
    if mapped.shape != shape or mapped.dtype != dtype:
        raise ValueError(f"{path} holds {mapped.dtype}{list(mapped.shape)}")
    x = np.array(mapped)
    if zlib.crc32(x.data) != sums[path.name]:
        raise ValueError(f"{path} is damaged")
    return x


def _settings(value: Any) -> str:
    """All that encoding depends on, as text. Raises TypeError for objects that are not of this package."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_settings, value))})"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if not dataclasses.is_dataclass(value) or not type(value).__module__.startswith("mmgen_jax."):
        raise TypeError(f"{value!r} is not of this package")
    fields = [field.name for field in dataclasses.fields(value) if field.name not in NETWORKS]
    return f"{type(value).__qualname__}({', '.join(f'{f}={_settings(getattr(value, f))}' for f in fields)})"


@functools.cache
def _code() -> str:
    """A hash of the code that encodes: it changes more often than the number of the version."""
    package = Path(__file__).parent.parent
    files = sorted(path for part in ("data", "modalities") for path in (package / part).rglob("*.py"))
    return str(digest(*(path.read_bytes() for path in files)))
