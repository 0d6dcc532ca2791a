"""Whether generated examples are copies of training examples.

    d(x)      = |x - t(x)|,   t(x) the training example nearest to x                                        (1)
    C_T       = (U - m n / 2) / sqrt(m n (m + n + 1) / 12),   U = #{(g, y): d(g) > d(y)}, ties half          (2)
    authentic = share of g with |g - t(g)| > r(t(g)),   r(t) the distance from t to its nearest other        (3)

(2) compares m generated g with n test examples y, which are no copies: a standard normal number where both are as far
from the training set, below -3 or so where generated ones are nearer, that is copied, and far above 0 where they do not
look like the data at all. It is the test of Meehan et al. 2020 (arXiv:2004.05675) with one cell. (3) Alaa et al. 2022,
arXiv:2102.08921: half or more of examples that are new.
"""

from __future__ import annotations

import numpy as np

from mmgen_jax.evals.metrics.neighbours import distances, squared_radii


def nearest(x: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square of equation (1), [n], of features x [n, d], and which of train [m, d] that is, [n]."""
    found = [(rows.min(1), rows.argmin(1)) for _, rows in distances(np.asarray(x), np.asarray(train))]
    least, which = zip(*found, strict=True)
    return np.concatenate(least), np.concatenate(which)


def copying(made: np.ndarray, test: np.ndarray, train: np.ndarray) -> float:
    """Equation (2) of features [m, d], [n, d] and those of the training set."""
    from scipy.stats import rankdata  # takes half a second to import

    (of_made, _), (of_test, _) = nearest(made, train), nearest(test, train)
    m, n = len(of_made), len(of_test)
    u = rankdata(np.concatenate([of_made, of_test]))[:m].sum() - m * (m + 1) / 2
    return float((u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))


def authentic(made: np.ndarray, train: np.ndarray) -> float:
    """Equation (3) of features [m, d] and those of the training set, of two examples or more."""
    least, which = nearest(made, train)
    return float((least > squared_radii(np.asarray(train), 1)[which]).mean())
