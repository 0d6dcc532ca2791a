"""How well embeddings of two modalities find each other, a_i and b_i being of the same thing.

alignment = mean_i cos(a_i, b_i)                                           the form of the CLIP score       (1)
recall@k  = share of a_i with b_i among the k of all b that are nearest to it by cosine                     (2)
"""

from __future__ import annotations

import numpy as np

from mmgen_jax.evals.metrics.tiles import rows_of_pairs


def unit(x: np.ndarray) -> np.ndarray:
    """Features [n, d] at length 1, float64."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def alignment(a: np.ndarray, b: np.ndarray) -> float:
    """Equation (1) of embeddings [n, d] each, none of them zero."""
    return float(np.mean(np.sum(unit(a) * unit(b), axis=1)))


def recall_at(k: int, a: np.ndarray, b: np.ndarray) -> float:
    """Equation (2) of embeddings [n, d] each; of b_j that are equally near, all count as nearer: ties are no luck.

    Raises:
        ValueError: k is not in 1..n.
    """
    if not 1 <= k <= len(a):
        raise ValueError(f"k is {k}, but must be in 1..{len(a)}, the number of pairs")
    a, b = unit(a), unit(b)
    found = 0
    for first, near in rows_of_pairs(a, b, lambda a, b: a @ b.T):
        own = np.diagonal(near, offset=first)[:, None]
        found += int((np.sum(near >= own, axis=1) <= k).sum())
    return found / len(a)
