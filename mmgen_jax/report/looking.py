"""What the report shows of the inside of a model: where it looks, and what its answers follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from mmgen_jax.evals.attribution import leave_one_out
from mmgen_jax.types import Array, Batch, Key, Model, Variables

EXAMPLES = 16  # that are looked at


@runtime_checkable
class Attentive(Protocol):
    """A model with attention over the tokens of its modalities: an optional capability, asked for by `isinstance`."""

    def token_counts(self) -> Mapping[str, int]: ...  # {}: it has no attention after all
    def attention_maps(self, variables: Variables, batch: Batch, key: Key) -> Array: ...  # [B, blocks, M, M]


@dataclasses.dataclass(frozen=True)
class Looks:
    """What was found over some test examples.

    Attributes:
        examples: how many.
        follows: equation (1) of `evals/attribution.py`, by (given, target); {} of fewer than three modalities.
        attention: [M, M], rows look at columns; the mean over examples and blocks; None if the model has no such maps.
        tokens: how many each modality has, if it has any.
    """

    examples: int
    follows: Mapping[tuple[str, str], float]
    attention: np.ndarray | None
    tokens: Mapping[str, int]


def look(model: Model, variables: Variables, examples: Batch, key: Key) -> Looks:
    """The tables of a model over the examples, which should be complete ones."""
    tokens = model.token_counts() if isinstance(model, Attentive) else {}
    maps = jax.device_get(model.attention_maps(variables, examples, key)).mean((0, 1)) if tokens else None
    many = len(model.modalities) > 2
    follows = leave_one_out(model, variables, examples, key) if many else {}
    return Looks(len(examples), follows, maps, tokens)
