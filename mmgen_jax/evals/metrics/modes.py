"""How many of K equally likely classes a set of n examples has, and how evenly.

    modes = the number of classes k with n_k > 0                                                            (1)
    KL    = sum_k q_k log (K q_k),      q_k = n_k / n                                                       (2)
    floor = (K - 1) / (2 n)                                what n draws of the data itself have on average  (3)
    s^2   = max(0, v - (K - 1) / n) / n + (K - 1) / (2 n^2),    v = sum_k q_k log^2 (K q_k) - KL^2          (4)

(2) is in nats; published values are comparable at the same n alone, because of (3). (4) is the variance of (2): by the
delta method v / n, from which goes what v has of chance alone, and where the classes are equally likely 2 n KL is a
chi-squared number of K - 1 degrees of freedom, whence (3) and the last term. Metz et al. 2017, arXiv:1611.02163, and
Srivastava et al. 2017, arXiv:1705.07761, count so.
"""

from __future__ import annotations

import numpy as np


def modes_covered(counts: np.ndarray) -> int:
    """Equation (1) of the number of examples in each class, int [K]."""
    return int((counts > 0).sum())


def modes_divergence(counts: np.ndarray) -> float:
    """Equation (2) of the number of examples in each class, int [K]."""
    q, surprise = _parts(counts)
    return float((q * surprise).sum())


def modes_floor(classes: int, examples: int) -> float:
    """Equation (3)."""
    return (classes - 1) / (2 * examples)


def modes_deviation(counts: np.ndarray) -> float:
    """s of equation (4), of the number of examples in each class, int [K]."""
    (q, surprise), n, free = _parts(counts), counts.sum(), len(counts) - 1
    v = (q * surprise**2).sum() - (q * surprise).sum() ** 2
    return float(np.sqrt(max(0, v - free / n) / n + free / (2 * n**2)))


def _parts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """q_k and log(K q_k) of the classes that occur."""
    q = counts[counts > 0] / counts.sum()
    return q, np.log(len(counts) * q)
