"""How clips move, and whether what is seen in them stays the same.

    consistency = mean_t cos(f_t, f_t+1),   f_t the features of a frame                                         (1)
    motion      = mean_t mean |x_t+1 - x_t|   over all values of a frame                                        (2)

(1) with CLIP's features is the frame consistency of Esser et al. 2023 (arXiv:2302.03011). It is largest for a
picture that stands still, which (2) tells from one that moves.
"""

from __future__ import annotations

import numpy as np


def consistency(features: np.ndarray) -> np.ndarray:
    """Equation (1), [n], of features [n, frames, d], none of them zero, of two frames or more."""
    x = np.asarray(features, np.float64)
    x = x / np.linalg.norm(x, axis=2, keepdims=True)
    return np.sum(x[:, 1:] * x[:, :-1], axis=2).mean(axis=1)


def motion(clips: np.ndarray) -> np.ndarray:
    """Equation (2), [n], of clips [n, frames, ...] of two frames or more."""
    change = np.abs(np.diff(np.asarray(clips, np.float64), axis=1))
    return change.mean(axis=tuple(range(1, change.ndim)))
