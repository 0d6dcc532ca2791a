"""What holds of every pair of two sets of features, without a matrix of all pairs in memory.

Rows are worked out some at a time, and each of them in tiles: neither a large part of the matrix nor a copy of all
features in float64 is ever there. What this needs beyond the features does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

ROOM = 2**24  # numbers of a matrix of pairs that are in memory at once, 128 MiB
TILE = 2048  # columns that are worked out at once


def rows_of_pairs(
    x: np.ndarray,
    y: np.ndarray,
    pair: Callable[[np.ndarray, np.ndarray], np.ndarray],
    origin: np.ndarray | float = 0.0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Some rows [r, m] of a matrix of all pairs of x [n, d] and y [m, d], and the number of the first of them.

    pair: some x - origin and some y - origin, float64, -> [r, c].
    """
    count = max(1, min(len(x), ROOM // max(1, len(y))))
    for first in range(0, len(x), count):
        some = np.asarray(x[first : first + count], np.float64) - origin
        rows = np.empty((len(some), len(y)))
        for i in range(0, len(y), TILE):
            rows[:, i : i + TILE] = pair(some, np.asarray(y[i : i + TILE], np.float64) - origin)
        yield first, rows


def cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x_i y_j / (|x_i| |y_j|) [n, m] of x [n, d] and y [m, d]; 0 where one of them is 0."""
    a, b = (z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(float).tiny) for z in (x, y))
    return a @ b.T


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2 [n, m] of x [n, d] and y [m, d], both as seen from somewhere near: a far origin costs digits."""
    product = x @ y.T
    product *= 2
    found = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1)
    found -= product
    return np.maximum(found, 0, out=found)
