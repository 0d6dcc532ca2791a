"""Data sets of the tensorflow-datasets catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmgen_jax.types import Source


class Selected:
    """Of each example of `source` the features that `paths` (modality -> path) names, in plain types.

    A path is a feature's name, or several joined by "/" for nested features.
    """

    def __init__(self, source: Source, paths: Mapping[str, str]) -> None:
        self.source = source
        self.paths = dict(paths)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example = self.source[i]
        return {name: tidy(_at(example, path)) for name, path in self.paths.items()}


def tidy(value: Any) -> Any:
    """bytes -> str; the first of several texts; a list of frames -> one array; anything else as it is."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | np.ndarray) and len(np.shape(value)) and len(value):
        first = value[0]
        if isinstance(first, bytes | str):
            return tidy(first)
        if isinstance(value, list) and isinstance(first, np.ndarray):
            return np.stack(value)
    return value


def _at(example: Mapping[str, Any], path: str) -> Any:
    """The value at `path`. A name may itself contain "/": the whole path is tried first."""
    if path in example:
        return example[path]
    head, _, rest = path.partition("/")
    return _at(example[head], rest)
