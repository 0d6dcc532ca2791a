"""How sure a classifier is of each sample, and how various its answers are.

    exp mean_x KL(p(y|x) || p(y)),   p(y) = mean_x p(y|x)            from 1 to the number of classes              (1)

the form of the Inception score (Salimans et al. 2016, arXiv:1606.03498), here of any classifier.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax


def class_score(logits: np.ndarray, splits: int = 1) -> tuple[float, float]:
    """Equation (1) of logits [n, classes], in float64: mean and deviation (population) over so many parts of the rows.

    The rows are split as they come: shuffle them where their order may mean something.

    Raises:
        ValueError: there are fewer rows than splits.
    """
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"splits is {splits}, but must be in 1..{n}, the number of samples")
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    parts = [log_p[i * n // splits : (i + 1) * n // splits] for i in range(splits)]
    values = [np.exp(np.mean(np.sum(np.exp(q) * (q - log_mean(q)), 1))) for q in parts]
    return float(np.mean(values)), float(np.std(values))


def log_mean(log_p: np.ndarray) -> np.ndarray:
    """log mean_x p [classes] of log p [n, classes]; the least number there is for a class that never has any weight."""
    return np.log(np.maximum(np.exp(log_p).mean(0), np.finfo(np.float64).tiny))
