"""What the report shows of a model that says how probable each symbol is: how surprising those of test examples are.

surprise of a cell    sum over its symbols of -log p(symbol | symbols before it, all other modalities), in nats     (1)
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmgen_jax.types import Array, Batch, Modality, Variables

EXAMPLES = 3  # that are shown


@runtime_checkable
class Predictive(Protocol):
    """A model of symbols: an optional capability, asked for by `isinstance`."""

    def surprise(self, variables: Variables, batch: Batch, of: str) -> Array: ...  # [B, symbols] of one modality
    def cells(self, name: str) -> tuple[int, ...]: ...  # the grid on which they lie, as many in each cell


def surprises(model: Any, variables: Variables, examples: Batch) -> dict[str, np.ndarray]:
    """(1) of the first examples, {name: [n, *cells]}; {} if the model is not `Predictive`."""
    if not isinstance(model, Predictive):
        return {}
    few = examples.take(slice(0, EXAMPLES))
    return {
        name: np.asarray(model.surprise(variables, few, name)).reshape(len(few), *model.cells(name), -1).sum(-1)
        for name in model.modalities
    }


def pieces(modality: Modality, x: np.ndarray, nats: np.ndarray) -> list[tuple[str, float]]:
    """What each symbol of a text x [L] adds to it, with its nats; at last "" with those of its end.

    Symbols that make a character only together, as bytes may, are one piece.
    """
    whole, shown, held, found = modality.decode(x), 0, 0.0, []
    for i, own in enumerate(nats.tolist()):
        # Up to symbol i; id 0 is padding in every text.
        so_far, held = modality.decode(np.where(np.arange(len(x)) <= i, x, 0)), held + own
        if whole.startswith(so_far) and len(so_far) > shown:
            found.append((so_far[shown:], held))
            shown, held = len(so_far), 0.0
    return [*found, ("", held)]
