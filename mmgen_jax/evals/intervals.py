"""How far a measured number can be trusted.

    share k / n        (k + z^2 / 2 -+ z sqrt(k (n - k) / n + z^2 / 4)) / (n + z^2)                        (1)
    any statistic v    v -+ z s,   s the deviation of v over halves drawn without replacement              (2)
    mean of n numbers  mean -+ z s / sqrt(n),   s their deviation                                          (3)
    sum x / sum d = v  v -+ z s / (sqrt(n) mean d),   s the deviation of x - v d                           (4)

(1): Wilson 1927. (2) is the delete-half jackknife (Shao and Wu 1989): of a mean, a half drawn so has just the variance
of the whole. A bootstrap would draw examples twice, and neighbours at distance 0 are what precision, recall and
coverage cannot have. A statistic that depends on the number of examples keeps its value, and lends only its spread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Z = 1.959964  # of an interval that holds the true value in 95 % of cases


def share_interval(share: float, n: float) -> tuple[float, float]:
    """Equation (1), for a share of n examples."""
    middle, k = n + Z**2, share * n
    spread = Z * np.sqrt(k * (1 - share) + Z**2 / 4)
    return float((k + Z**2 / 2 - spread) / middle), float((k + Z**2 / 2 + spread) / middle)


def mean_interval(x: np.ndarray) -> tuple[float, float]:
    """Equation (3), of numbers x [n]; NaN for a single one."""
    spread = Z * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else np.nan
    return float(x.mean() - spread), float(x.mean() + spread)


def ratio_interval(x: np.ndarray, d: np.ndarray) -> tuple[float, float]:
    """Equation (4), of numbers x [n] and what each is counted by, d [n]; NaN for a single one."""
    value = x.sum() / d.sum()
    low, high = mean_interval((x - value * d) / d.mean())
    return float(value + low), float(value + high)


def spread_of_halves(
    statistic: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray, rounds: int, seed: int
) -> float:
    """s of equation (2), for a statistic of two sets of examples [n, ...] and [m, ...]."""
    rng = np.random.default_rng(seed)

    def half(z: np.ndarray) -> np.ndarray:
        return z[rng.permutation(len(z))[: max(2, len(z) // 2)]]

    return float(np.std([statistic(half(x), half(y)) for _ in range(rounds)], ddof=1))
