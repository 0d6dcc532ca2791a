"""What a transformer over several modalities must know of each: its symbols, and where its tokens are, on shared axes.

The axes are second, row, column and index. Sound and video have their positions in seconds, so that what happens
together stands together.
"""

from __future__ import annotations

import numpy as np

from mmgen_jax.modalities.likelihoods import Categorical
from mmgen_jax.nn.rope import tables
from mmgen_jax.types import Modality

AXES = ("second", "row", "column", "index")
PER_SECOND = 25.0  # of positions: frames of a film are then about as far apart as rows of pixels


def symbols(modality: Modality) -> int | None:
    """The number of symbols of a discrete modality, None for real values. The symbol of that number is the mask."""
    likelihood = modality.likelihood
    return likelihood.classes if isinstance(likelihood, Categorical) else None


def on_axes(positions: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    """Positions [T, axes] on all of `AXES`, [T, 4]; 0 on those that are not among `axes`."""
    placed = np.zeros((len(positions), len(AXES)))
    for column, axis in enumerate(axes):
        placed[:, AXES.index(axis)] = positions[:, column] * (PER_SECOND if axis == "second" else 1.0)
    return placed


def places(modality: Modality) -> np.ndarray:
    """The positions of a modality's own tokens on all of `AXES`, [T, 4]."""
    return on_axes(modality.positions(), modality.axes)


def place_vectors(modality: Modality, width: int) -> np.ndarray:
    """The cosines and sines of those positions, [T, width] float64 (`nn/rope.py`)."""
    return np.concatenate(tables(places(modality), width), axis=-1)
