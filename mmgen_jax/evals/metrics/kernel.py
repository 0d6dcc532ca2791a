"""The kernel distance between two sets of features: an unbiased estimate of the squared maximum mean discrepancy.

    MMD^2 = mean_{i /= j} k(x_i, x_j) + mean_{i /= j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)         (1)

(Gretton et al. 2012, equation 3). With the cubic kernel (g x.y + 1)^3, g = 1 / d, on subsets of 1,000 it is what
Binkowski et al. (2018, arXiv:1801.01401) call KID, on their network's features. It may be a little below zero, and,
unlike the Frechet distance, does not shrink as samples are added: it is right on average at any number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mmgen_jax.evals.metrics.tiles import rows_of_pairs, squared_distances


class Kernel(Protocol):
    """x [n, d], y [m, d] -> [n, m]."""

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """(scale x.y + offset)^degree; without a scale, 1 / d."""

    degree: int = 3
    scale: float | None = None
    offset: float = 1.0

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        scale = 1 / x.shape[1] if self.scale is None else self.scale
        return (scale * (x @ y.T) + self.offset) ** self.degree


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """exp(-|x - y|^2 / (2 width^2))."""

    width: float = 10.0

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(-squared_distances(x - y[:1], y - y[:1]) / (2 * self.width**2))


def kernel_distance(
    x: np.ndarray,
    y: np.ndarray,
    kernel: Kernel = Polynomial(),
    subsets: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
) -> tuple[float, float]:
    """Equation (1) of features x [n, d] and y [m, d], in float64: its mean over subsets, and deviation (population).

    subsets: the rows of x and of y in each, see `draw_subsets`; None: one, of everything, worked out in parts.

    Raises:
        ValueError: features of different size, or fewer than two rows.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be [n, d] and [m, d] with n, m > 1, not {list(x.shape)} and {list(y.shape)}")
    parts = [(x, y)] if subsets is None else ((x[rows], y[others]) for rows, others in subsets)
    values = [within(a, kernel) + within(b, kernel) - 2 * between(a, b, kernel) for a, b in parts]
    return float(np.mean(values)), float(np.std(values))


def within(x: np.ndarray, kernel: Kernel) -> float:
    """The mean of k(x_i, x_j) over i /= j."""
    n = len(x)
    total = sum(rows.sum() - np.trace(rows, offset=first) for first, rows in rows_of_pairs(x, x, kernel))
    return total / (n * (n - 1))


def between(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> float:
    """The mean of k(x_i, y_j) over all i, j."""
    return sum(rows.sum() for _, rows in rows_of_pairs(x, y, kernel)) / (len(x) * len(y))


def draw_subsets(n: int, m: int, count: int, size: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` pairs of `size` rows out of n and of m, each without repetition.

    Raises:
        ValueError: there are fewer than `size` rows.
    """
    if not 2 <= size <= min(n, m):
        raise ValueError(f"size is {size}, but must be in 2..{min(n, m)}, the number of examples")
    rng = np.random.default_rng(seed)
    return [(rng.choice(n, size, replace=False), rng.choice(m, size, replace=False)) for _ in range(count)]
