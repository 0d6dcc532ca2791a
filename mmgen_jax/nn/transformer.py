"""The transformer, with padding masks, causal masks and a key-value cache, and the text networks made of it.

Pre-norm blocks (Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745):

    h = x + Attention(RMSNorm(x)),    Attention(q, k, v) = softmax(q k^T / sqrt(d) + mask) v      (1)
    y = h + MLP(RMSNorm(h))                                                                      (2)

The cache is a value, passed in and returned: nothing is hidden in a module.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.materialized import materialized
from mmgen_jax.nn.embed import TokenEmbed, TokenHead
from mmgen_jax.types import Array, Key

PADDING, END = 0, 1  # the two ids every text shares; a tokenizer's own start at 2
RECENT = 4  # tokens that are embedded together: spelling is local, and attention takes long to find its neighbours
Cache = tuple[Array, Array]  # keys and values so far, each [B, L, heads, d]


def attend(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Equation (1): q [B, T, H, d], k and v [B, S, H, d], mask bool [B or 1, T, S] (True = visible) -> [B, T, H, d].

    A query that sees nothing gets zeros, not the mean of everything.
    """
    scores = jnp.einsum("bthd,bshd->bhts", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    mask = mask[:, None]
    weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1), 0)
    return jnp.einsum("bhts,bshd->bthd", weights.astype(v.dtype), v)


class Block(nn.Module):
    """Equations (1) and (2) on x [B, T, D]. With a cache, x is the single position `index` of a longer sequence."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, mask: Array, cache: Cache | None = None, index: Array | int = 0
    ) -> tuple[Array, Cache]:
        width = x.shape[-1]
        h = nn.RMSNorm(dtype=self.dtype)(x)
        q, k, v = jnp.split(nn.DenseGeneral((self.heads, 3 * width // self.heads), dtype=self.dtype)(h), 3, axis=-1)
        if cache is not None:
            k, v = (lax.dynamic_update_slice_in_dim(old, new, index, 1) for old, new in zip(cache, (k, v), strict=True))
        x = x + nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype)(attend(q, k, v, mask))
        h = nn.Dense(4 * width, dtype=self.dtype)(nn.RMSNorm(dtype=self.dtype)(x))
        x = x + nn.Dense(width, dtype=self.dtype)(nn.silu(h))
        return materialized(x), (k, v)


def heads_of(width: int) -> int:
    """Heads of size 32, or one where the width is not made of 32s."""
    return width // 32 if width % 32 == 0 else 1


class RecentEmbed(nn.Module):
    """sum_k E_k[t_k] over the RECENT tokens before a position, newest first, each place k with a table of its own.

    tokens [..., RECENT] int -> [..., width].
    """

    vocabulary: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        places = jnp.broadcast_to(jnp.arange(RECENT) * self.vocabulary, tokens.shape)
        return TokenEmbed(RECENT * self.vocabulary, self.width, self.dtype)(tokens + places).sum(axis=-2)


def recent(tokens: Array) -> Array:
    """Tokens [B, L] -> [B, L, RECENT]: at each position itself and those before it, PADDING before the first."""
    length = tokens.shape[1]
    padded = jnp.pad(tokens, ((0, 0), (RECENT - 1, 0)))  # the padding id stands for "nothing yet"
    return jnp.stack([padded[:, RECENT - 1 - k : RECENT - 1 - k + length] for k in range(RECENT)], axis=-1)


class TextEncoder(nn.Module):
    """Tokens [B, L] -> [B, outputs]: blocks that do not see padding, then the mean over what is no padding."""

    vocabulary: int
    outputs: int
    features: int = 64
    layers: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        there = tokens != PADDING
        places = self.param("positions", nn.initializers.normal(0.02), (tokens.shape[1], self.features))
        x = RecentEmbed(self.vocabulary, self.features, self.dtype)(recent(tokens)) + places.astype(self.dtype)[None]
        for _ in range(self.layers):
            x, _cache = Block(heads_of(self.features), self.dtype)(x, there[:, None, :])
        weights = there / jnp.maximum(there.sum(axis=1, keepdims=True), 1)
        pooled = jnp.einsum("bl,bld->bd", weights.astype(self.dtype), nn.RMSNorm(dtype=self.dtype)(x))
        return nn.Dense(self.outputs, dtype=self.dtype)(pooled)


class TextDecoder(nn.Module):
    """p(text | z) = prod_i p(t_i | t_<i, z). The code z is added to every position and may not be overlooked."""

    vocabulary: int
    length: int
    features: int = 64
    layers: int = 1
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.embed = RecentEmbed(self.vocabulary, self.features, self.dtype)
        self.code = nn.Dense(self.features, dtype=self.dtype)
        self.places = self.param("positions", nn.initializers.normal(0.02), (self.length, self.features))
        self.blocks = [Block(heads_of(self.features), self.dtype) for _ in range(self.layers)]
        self.norm = nn.RMSNorm(dtype=self.dtype)
        self.head = TokenHead(self.vocabulary, self.dtype)

    def __call__(self, z: Array, tokens: Array) -> Array:
        """z [B, Z], tokens [B, L] -> logits [B, L, V]; position i sees z and the tokens before i."""
        before = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
        x = self.embed(recent(before)) + self.places.astype(self.dtype)[None] + self.code(z)[:, None]
        causal = jnp.tril(jnp.ones((self.length, self.length), bool))[None]
        for block in self.blocks:
            x, _cache = block(x, causal)
        return self._logits(x)

    def generate(self, z: Array, key: Key | None = None) -> Array:
        """Tokens [B, L] int32, one after the other: without a key the most probable, with one drawn. END ends it."""
        heads = heads_of(self.features)
        empty = jnp.zeros((z.shape[0], self.length, heads, self.features // heads), self.dtype)
        code = self.code(z)

        def step(carry: tuple, i: Array) -> tuple[tuple, Array]:
            before, ended, caches = carry
            logits, caches = self._next(before, code, i, caches)
            choice = logits if key is None else logits + jax.random.gumbel(jax.random.fold_in(key, i), logits.shape)
            token = jnp.where(ended, PADDING, jnp.argmax(choice, axis=-1)).astype(jnp.int32)
            before = jnp.concatenate([token[:, None], before[:, :-1]], axis=1)
            return (before, ended | (token == END), caches), token

        nothing = jnp.full((z.shape[0], RECENT), PADDING, jnp.int32)
        start = (nothing, jnp.zeros(z.shape[0], bool), [(empty, empty)] * self.layers)
        return lax.scan(step, start, jnp.arange(self.length))[1].T

    def _next(self, before: Array, code: Array, i: Array, caches: list[Cache]) -> tuple[Array, list[Cache]]:
        """Logits [B, V] of position i, given the tokens just before it [B, RECENT] and what the blocks remember."""
        x = self.embed(before[:, None]) + (code + self.places.astype(self.dtype)[i][None])[:, None]
        visible = (jnp.arange(self.length) <= i)[None, None]
        new = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, visible, cache, i)
            new.append(cache)
        return self._logits(x)[:, 0], new

    def _logits(self, x: Array) -> Array:
        """Padding is no symbol: it gets no probability, so that those of all texts sum to one."""
        return self.head(self.norm(x)).at[..., PADDING].set(-1e30)
