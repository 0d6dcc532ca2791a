"""Mean and covariance of a stream of features, in parts that merge in any order.

    n = n_a + n_b,   d = mean_b - mean_a                                                             (1)
    mean    = mean_a + d n_b / n                                                                     (2)
    scatter = scatter_a + scatter_b + d d' n_a n_b / n,   scatter = sum_i (x_i - mean)(x_i - mean)'  (3)

(Chan, Golub and LeVeque 1983). Unlike E[xx'] - mean mean', nothing cancels where the mean is large.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Self

import numpy as np

BLOCK = 8192  # examples that are there in float64 at once


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """n examples of d features: mean [d] and scatter [d, d], float64."""

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Those of features [n, d]; n may be 0.

        Raises:
            ValueError: features are not [n, d], or not finite.
        """
        x = np.asarray(features)
        if x.ndim != 2:
            raise ValueError(f"features must be [n, d], not {list(x.shape)}")
        return functools.reduce(cls.merged, (cls._of(x[i : i + BLOCK]) for i in range(0, max(1, len(x)), BLOCK)))

    @classmethod
    def _of(cls, features: np.ndarray) -> Self:
        """Those of a few, all at once."""
        x = np.asarray(features, np.float64)
        if not np.isfinite(x).all():
            raise ValueError("features must be finite, but some are NaN or infinite")
        mean = x.sum(0) / max(1, len(x))
        x = x - mean
        return cls(len(x), mean, x.T @ x)  # of one array and itself: BLAS does half of the work

    def merged(self, other: Self) -> Self:
        """Those of both parts together, equations (1) to (3)."""
        n = self.n + other.n
        d, share = other.mean - self.mean, other.n / max(1, n)
        scatter = self.scatter + other.scatter + np.outer(d, d) * (self.n * share)
        return type(self)(n, self.mean + d * share, scatter)

    @property
    def covariance(self) -> np.ndarray:
        """[d, d]; divides by n - 1."""
        return self.scatter / (self.n - 1)
