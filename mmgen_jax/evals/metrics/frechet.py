"""The Frechet distance between two sets of features, as if each were Gaussian (Dowson and Landau 1982).

    d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)                                (1)

With centred features A [n_1, d], B [n_2, d] scaled so that S_1 = A'A and S_2 = B'B, the last trace is

    tr (S_1 S_2)^(1/2) = |A B'|_*,                        the sum of its singular values          (2)
                       = sum_i sqrt lambda_i (S_1^(1/2) S_2 S_1^(1/2))                            (3)

Both are real and never negative, unlike the square root of a product that is not symmetric. (3) is cheaper for many
examples, and all that is left of a stream; (2) is exact where there are fewer examples than dimensions and the
covariances are singular.

(1) is too large by about c / n_1. Its value for infinitely many samples is where a line through values at several n
meets 1 / n = 0 (Chong and Forsyth 2020, arXiv:1911.07023).

It is not called FID: that name belongs to the features of one network trained on photographs (Heusel et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmgen_jax.evals.metrics.moments import Moments


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Equation (1) of features x [n_1, d] and y [n_2, d], in float64; the covariances divide by n - 1.

    Raises:
        ValueError: fewer than two examples, features of different size, or values that are not finite.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be [n, d] and [m, d] with n, m > 1, not {list(x.shape)} and {list(y.shape)}")
    if min(len(x), len(y)) > x.shape[1]:
        return frechet_of_moments(Moments.of(x), Moments.of(y))
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features must be finite, but some are NaN or infinite")
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    root = np.linalg.norm(a @ b.T, "nuc")  # (2)
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * root)


def frechet_of_moments(x: Moments, y: Moments) -> float:
    """Equation (1) of two streams, by (3)."""
    cov_x, cov_y = x.covariance, y.covariance
    traces = np.trace(cov_x) + np.trace(cov_y) - 2 * trace_of_root(cov_x, cov_y)
    return float(np.sum((x.mean - y.mean) ** 2) + traces)


def trace_of_root(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """tr (S_1 S_2)^(1/2) by equation (3), of symmetric positive semi-definite matrices [d, d]."""
    values, vectors = np.linalg.eigh(cov1)
    half = vectors * np.sqrt(np.maximum(values, 0))  # S_1 = half half'; any root of S_1 gives the same eigenvalues
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(half.T @ cov2 @ half), 0)).sum())


def frechet_at_infinity(x: np.ndarray, y: np.ndarray, sizes: Sequence[int]) -> float:
    """What (1) tends to for ever more samples x: of the first n of x [n_1, d], for each n of `sizes`, against all of y.

    Shuffle x where its order may mean something.

    Raises:
        ValueError: fewer than two sizes, or one that is not in 2..n_1.
    """
    if len(set(sizes)) < 2 or not all(2 <= n <= len(x) for n in sizes):
        raise ValueError(f"sizes is {list(sizes)}, but must be at least two different ones in 2..{len(x)}")
    values = [frechet_distance(x[:n], y) for n in sizes]
    return float(np.polynomial.polynomial.polyfit(1 / np.asarray(sizes, np.float64), values, 1)[0])
