"""Numbers that look random, made by a formula, so that a fixture need not store weights of megabytes."""

import math
import zlib
from collections.abc import Mapping

import numpy as np

PRIORS = ("prior_", "mean_priors.", "logvars_priors.")  # left as they start, at zero


def numbers(name: str, *shape: int) -> np.ndarray:
    """float64 in [-1, 1): a hash of the place and the name, in exact integer arithmetic."""
    i = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))
    for factor in (0x9E3779B1, 0x85EBCA6B):
        i = (i ^ (i >> np.uint64(15))) * np.uint64(factor) % np.uint64(2**32)
    return ((i ^ (i >> np.uint64(16))) / 2.0**31 - 1).reshape(shape)


def weights(shapes: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
    """A state dict with these names and shapes, of a size that keeps activations near one."""
    return {
        name: np.zeros(shape)
        if name.startswith(PRIORS)
        else numbers(name, *shape) * math.sqrt(4 * shape[0] / math.prod(shape) if len(shape) > 1 else 0.01)
        for name, shape in shapes.items()
    }
