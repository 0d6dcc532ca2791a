"""How much of each of two sets of features lies in the other, by balls around their points.

    r(x) = the distance to the k-th nearest other point of x's own set                                     (1)
    precision = share of generated g with |g - y| <= r(y) for some real y                                  (2)
    recall    = share of real y with |y - g| <= r(g) for some generated g                                  (3)
    density   = mean over g of the number of real y with |g - y| < r(y), divided by k                      (4)
    coverage  = share of real y with |y - g| < r(y) for some generated g                                   (5)

(2), (3): Kynkaanniemi et al. 2019 (arXiv:1904.06991), k = 3; (4), (5): Naeem et al. 2020 (arXiv:2002.09797), k = 5,
who leave the edge of the ball out, in (2) and (3) too (`strict`). Sets that are alike have precision = recall, a
density of 1 and the coverage of `expected_coverage`. Squared distances are compared, some rows at a time (`tiles.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmgen_jax.evals.metrics.tiles import rows_of_pairs, squared_distances


def squared_radii(x: np.ndarray, k: int) -> np.ndarray:
    """The square of equation (1), [n], of x [n, d].

    Raises:
        ValueError: a point does not have k neighbours.
    """
    if not 1 <= k < len(x):
        raise ValueError(f"k is {k}, but must be in 1..{len(x) - 1}, as there are {len(x)} points")
    found = []
    for _, rows in distances(x, x):
        rows.partition(k, axis=1)  # the nearest is the point itself, and counts
        found.append(rows[:, k].copy())  # a view would keep all of the rows
    return np.concatenate(found)


def distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The squared distances of some x from all y at a time, and the number of the first of them."""
    return rows_of_pairs(x, y, squared_distances, np.asarray(y[:1], np.float64))


def precision_recall(made: np.ndarray, real: np.ndarray, k: int = 3, strict: bool = False) -> dict[str, float]:
    """Equations (2) and (3), "precision" and "recall", and "f", their harmonic mean (0 where both are).

    made, real: features [n, d], [m, d].
    strict: whether the edge of a ball lies outside it.
    """
    made, real = np.asarray(made), np.asarray(real)
    inside = np.less if strict else np.less_equal
    by_real, by_made = squared_radii(real, k), squared_radii(made, k)
    found = np.zeros(len(real), bool)
    precise = []
    for first, rows in distances(made, real):
        precise.append(inside(rows, by_real).any(1))
        found |= inside(rows, by_made[first : first + len(rows), None]).any(0)
    p, r = float(np.concatenate(precise).mean()), float(found.mean())
    return {"precision": p, "recall": r, "f": 2 * p * r / max(1e-5, p + r)}


def density_coverage(made: np.ndarray, real: np.ndarray, k: int = 5) -> dict[str, float]:
    """Equations (4) and (5), "density" and "coverage", of features [n, d], [m, d]."""
    made, real = np.asarray(made), np.asarray(real)
    radii = squared_radii(real, k)
    counts, covered = 0, np.zeros(len(real), bool)
    for _, rows in distances(made, real):
        inside = rows < radii
        counts += int(inside.sum())
        covered |= inside.any(0)
    return {"density": counts / (k * len(made)), "coverage": float(covered.mean())}


def expected_coverage(real: int, made: int, k: int) -> float:
    """The expectation of (5) for so many points of one continuous distribution: each order of them is as likely."""
    j = np.arange(1, k + 1)
    return float(1 - np.prod((real - j) / (real + made - j)))
