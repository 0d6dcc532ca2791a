"""How many different things a set of features holds.

    V = exp -sum_i l_i log l_i,   l the eigenvalues of K / n,  K_ij = cosine of x_i and x_j          (1)

the Vendi score (Friedman and Dieng 2022, arXiv:2210.02410): n for features at right angles to one another, 1 for one
feature n times.
"""

from __future__ import annotations

import numpy as np


def vendi_score(x: np.ndarray) -> float:
    """Equation (1) of features [n, d], none of them zero, in float64.

    Raises:
        ValueError: a feature is zero, so that it has no direction.
    """
    x = np.asarray(x, np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError(f"features must not be zero, but {int((lengths <= 0).sum())} of {len(x)} are")
    x = x / lengths
    # X X' and X' X have the same eigenvalues but zeros, and the smaller of them is cheaper.
    gram = (x.T @ x if x.shape[1] < len(x) else x @ x.T) / len(x)
    values = np.linalg.eigvalsh(gram)
    values = values[values > 0]
    return float(np.exp(-np.sum(values * np.log(values))))
