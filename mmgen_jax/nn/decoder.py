"""A transformer whose tokens see by rank, and which remembers keys and values of tokens that no longer change.

    token a sees token b  if  rank_b <= rank_a                                                                      (1)
    h = x + W Attention(rope(norm q), rope(norm k), v),   q, k, v of RMSNorm(x);   y = h + SwiGLU(RMSNorm(h))       (2)

One rule makes all masks: ranks 0 for what is given and 1 for what is filled in, where what is given does not see the
latter, so its keys and values can be kept; ranks that rise for what is written token by token; `NOWHERE`, which nobody
else sees, for what is not there. (2) are the blocks of Llama (Touvron et al. 2023, arXiv:2302.13971), with normalised
q and k (Dehghani et al. 2023, arXiv:2302.05442) and fewer heads of k and v (Ainslie et al. 2023, arXiv:2305.13245).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from mmgen_jax.materialized import materialized
from mmgen_jax.nn.depth import at_once
from mmgen_jax.nn.dit import FeedForward
from mmgen_jax.nn.rope import rotate
from mmgen_jax.nn.watching import SOWN, watched
from mmgen_jax.types import Array

NOWHERE = 2**30  # the rank of what is not there
Cache = tuple[Array, Array]  # keys and values of all blocks, each [B, depth, L, groups, d]
Rope = tuple[Array, Array]  # cosines and sines, [T, d / 2] or [B, T, d / 2]


def sees(rank: Array, of: Array) -> Array:
    """Equation (1): ranks [B, T] of those who look, and [B, S] of what is looked at -> bool [B, 1, T, S]."""
    return (of[:, None, :] <= rank[:, :, None])[:, None]


class DecoderBlock(nn.Module):
    """Equation (2), x [B, T, D] -> [B, T, D], and the keys and values [B, L, groups, d] with those of x among them.

    With keys and values of L tokens, those of x take their place from `start` on, and the mask is [B, 1, T, L].
    """

    heads: int
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, memory: Cache | None, mask: Array, rope: Rope, start: Array) -> tuple[Array, Cache]:
        width = x.shape[-1]
        d, h = width // self.heads, nn.RMSNorm(dtype=self.dtype)(x)

        def project(name: str, count: int) -> Array:
            return nn.DenseGeneral((count, d), use_bias=False, dtype=self.dtype, name=name)(h)

        q, k, v = project("q", self.heads), project("k", self.groups), project("v", self.groups)
        q, k = (rotate(nn.RMSNorm(dtype=self.dtype, name=f"{n}_norm")(a), *rope) for n, a in (("q", q), ("k", k)))
        if memory is not None:
            k, v = (
                lax.dynamic_update_slice_in_dim(old, new, start, 1) for old, new in zip(memory, (k, v), strict=True)
            )
        seen = watched(self, q, k, v, mask)
        out = nn.DenseGeneral(width, axis=(-2, -1), use_bias=False, dtype=self.dtype, name="out")
        x = materialized(x + out(seen))
        return materialized(x + FeedForward("swiglu", 4.0, self.dtype)(nn.RMSNorm(dtype=self.dtype)(x))), (k, v)


class Decoder(nn.Module):
    """`depth` blocks, compiled once. heads: of q; groups: of k and v."""

    depth: int
    heads: int
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, mask: Array, rope: Rope, memory: Cache | None = None, start: Array | int = 0
    ) -> tuple[Array, Cache]:
        """x [B, T, D], mask bool [B, 1, T, T or L] -> [B, T, D], and the memory [B, depth, T or L, groups, d] after."""

        def body(block: nn.Module, x: Array, memory: Cache | None) -> tuple[Array, Cache]:
            return block(x, memory, mask, rope, start)

        options = {"in_axes": 1, "out_axes": 1, "length": self.depth, "unroll": at_once(self.depth)}
        scan = nn.scan(body, variable_axes={"params": 0, SOWN: 0}, split_rngs={"params": True}, **options)
        return scan(DecoderBlock(self.heads, self.groups, self.dtype, name="layers"), x, memory)

    def nothing(self, batch: int, length: int, width: int) -> Cache:
        """A memory of `length` tokens that are still to come."""
        shape = (batch, self.depth, length, self.groups, width // self.heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)
