"""How evenly what a generator makes changes on the way from one code to another.

    l   = |f(t + s) - f(t)|^2 / s^2,     t ~ U(0, 1), f(t) the features of what is made at the share t of a way   (1)
    PPL = the mean of l over many ways, without the values below the 1st and above the 99th percentile            (2)

the perceptual path length of Karras et al. 2019 (arXiv:1812.04948, s = 1e-4), here in whatever features there are:
numbers can only be compared within the same ones. Real examples have no ways between them, so there is no noise floor;
a generator whose features are linear in the code has the mean squared length of its ways.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Features = Callable[[np.ndarray], np.ndarray]


def path_length(features: Features, shares: np.ndarray, step: float = 1e-4) -> tuple[float, float]:
    """Equation (2), and its standard error.

    features: shares [n] -> [n, d], those of what is made there on n ways, which must be the same in every call.
    shares: t, [n], of at least two ways. All zero: only the beginnings are looked at, "end" in the published code.

    Raises:
        ValueError: fewer than two ways, or a step that is not positive.
    """
    if len(shares) < 2 or not step > 0:
        raise ValueError(f"there are {len(shares)} shares and a step of {step}, but must be 2 or more, and above 0")
    near, far = (np.asarray(features(t), np.float64) for t in (shares, shares + step))
    lengths = np.sum((far - near) ** 2, axis=1) / step**2
    kept = trimmed(lengths)
    return float(kept.mean()), float(kept.std(ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else float("nan")


def trimmed(x: np.ndarray, low: float = 1, high: float = 99) -> np.ndarray:
    """The values of x [n] between these percentiles, where a percentile is a value that occurs, the outer one."""
    ends = np.percentile(x, low, method="lower"), np.percentile(x, high, method="higher")
    return x[(ends[0] <= x) & (x <= ends[1])]
