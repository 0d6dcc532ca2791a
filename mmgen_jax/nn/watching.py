"""Looking at attention: who looks at whom in a network, which says so only where it is asked.

    share_ab = mean over the queries of a of the sum over the keys of b of their weights, the mean of all heads   (1)

A block that calls `watched` in place of `attention` sows its weights in the collection "intermediates". Unless that is
mutable, as in `apply(..., mutable=["intermediates"])`, it is the same program as without. How much attention goes
somewhere is no proof that it matters there (Jain and Wallace 2019, arXiv:1902.10186): values may be small, or cancel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.nn.attention import attention, attention_weights
from mmgen_jax.types import Array

SOWN = "intermediates"  # which Linen leaves out of what `init` returns
NAME = "attention_weights"


def watched(
    module: nn.Module, q: Array, k: Array, v: Array, mask: Array | None = None, implementation: str | None = None
) -> Array:
    """`nn.attention.attention` in a block, whose weights can be looked at."""
    if module.is_mutable_collection(SOWN):
        weights = attention_weights(q, k, mask, None, False, q.shape[-1] ** -0.5)
        module.sow(SOWN, NAME, weights.mean(1))
    return attention(q, k, v, mask=mask, implementation=implementation)


def shares(sown: Mapping[str, Any], stacks: Sequence[str], lengths: Sequence[int]) -> Array:
    """Equation (1) of all blocks, [B, blocks, M, M]: rows look, columns are looked at.

    sown: the collection after `apply`. stacks: where in it scanned blocks are, in order, such as "joint".
    lengths: of the M parts that all sequences are made of, in order.
    """
    weights = jnp.concatenate([sown[stack]["layers"][NAME][0] for stack in stacks])  # [blocks, B, T, T]
    member = jnp.asarray(np.repeat(np.eye(len(lengths), dtype=np.float32), lengths, axis=0))  # [T, M]
    return jnp.einsum("lbts,ta,sc->blac", weights, member / jnp.asarray(lengths)[None], member)


def own_rows(sown: Mapping[str, Any], stacks: Sequence[str], counts: Mapping[str, int]) -> dict[str, Array]:
    """The row of each modality, [B, blocks, M], where a batch [M B] has asked for each of them in turn.

    counts: the tokens of each. All in the order of the sorted names, as the sequences are.
    """
    names = sorted(counts)
    found = shares(sown, stacks, [counts[name] for name in names])
    asked = found.reshape(len(names), -1, *found.shape[1:])  # [M, B, blocks, M, M]
    return {name: asked[i, :, :, i] for i, name in enumerate(names)}


def arranged(rows: Mapping[str, Array], order: Sequence[str]) -> Array:
    """Rows [B, blocks, M] by name, their columns in the order of the sorted names, as [B, blocks, M, M] in `order`."""
    columns = np.array([sorted(rows).index(name) for name in order])
    return jnp.stack([rows[name] for name in order], axis=2)[..., columns]
