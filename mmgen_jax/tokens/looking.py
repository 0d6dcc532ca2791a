"""What a token transformer looks at when it makes one modality of all others.

The others are the prefix; the modality is all masks where masks are filled in, or else its own symbols, each after
those before it, as in training (`tasks.py`). The network is asked once for each modality, side by side, and its
attention looked at (`nn/watching.py`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mmgen_jax.nn.decoder import NOWHERE
from mmgen_jax.nn.watching import SOWN, arranged, own_rows
from mmgen_jax.tokens.sampling import MaskGIT, RandomOrder
from mmgen_jax.types import Array, Batch, Variables


def attention_maps(model: Any, variables: Variables, batch: Batch) -> Array:
    """Of `Tokens`, [B, blocks, M, M]: the attention that each modality pays to each other while it is made.

    Rows and columns are in the order of `model.modalities`, and a row sums to 1; the mean over heads and slots.
    """
    return arranged(looks(model, variables, batch), list(model.modalities))


@functools.partial(jax.jit, static_argnums=0)
def looks(model: Any, variables: Variables, batch: Batch) -> dict[str, Array]:
    """The rows [B, blocks, M] by name, their columns in the order of the sorted names."""
    batch, sequences, counts = batch.only(model.modalities).masked(), model.sequences, model.token_counts()
    names, tokens = sorted(sequences), model.tokens(variables, batch)
    views = []
    for name in names:
        filled = isinstance(model.decoding_of(name), MaskGIT | RandomOrder)
        shown = {**tokens, name: jnp.full_like(tokens[name], sequences[name].mask)} if filled else tokens
        ranks = {n: jnp.where(batch.present[n][:, None], jnp.zeros((1, counts[n]), int), NOWHERE) for n in names}
        own = jnp.ones(counts[name], int) if filled else 1 + jnp.arange(counts[name])
        ranks[name] = jnp.broadcast_to(own[None], ranks[name].shape)
        slots = {n: sequences[n].slots(shown[n]) for n in names}
        views.append((slots, jnp.concatenate([ranks[n] for n in names], axis=1)))
    together = jax.tree.map(lambda *parts: jnp.concatenate(parts), *views)
    _, sown = model.network.apply({"params": variables["params"]}, *together, mutable=[SOWN])
    return own_rows(sown[SOWN], ["decoder"], counts)
