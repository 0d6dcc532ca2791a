"""Blocks of diffusion transformers: tokens that are told, at every norm, the time and what else conditions them.

    (s_1, a_1, g_1, s_2, a_2, g_2) = W SiLU(c) + b    shift, scale and gate, twice; zero at first        (1)
    h = x + g_1 Attention((1 + a_1) LN(x) + s_1)      LN without scale or bias of its own, eps 1e-6      (2)
    y = h + g_2 MLP((1 + a_2) LN(h) + s_2)                                                               (3)

(1)-(3) are adaLN-Zero of DiT (Peebles & Xie 2022, arXiv:2212.09748), here `DiTBlock`: the same weights for all tokens.
`JointBlock` is that of SD3 (Esser et al. 2024, arXiv:2403.03206): every stream of tokens owns (1)-(3), and attention is
over the tokens of all streams. Normalising q and k: Dehghani et al. 2023, arXiv:2302.05442. At first every block is the
identity and `Head` gives zeros. Parameters are float32; matrix products of tokens are in `dtype`; norms, softmax, the
conditioning vectors and what is made of them stay in float32 or better.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from mmgen_jax.materialized import materialized
from mmgen_jax.nn.depth import at_once
from mmgen_jax.nn.rope import rotate, time_features
from mmgen_jax.nn.watching import SOWN, watched
from mmgen_jax.types import Array

Tables = tuple[np.ndarray, np.ndarray]  # cosines and sines of `nn.rope.tables`
Lengths = tuple[int, ...]
EPS = 1e-6
matrix = nn.initializers.xavier_uniform()
policies = jax.checkpoint_policies
# What the backward pass may keep of a block instead of computing it again; None keeps everything.
REMAT = {
    "full": policies.nothing_saveable,
    "dots": policies.dots_with_no_batch_dims_saveable,
    "names": policies.save_only_these_names("attention", "mlp"),
}


def wide(dtype: Any) -> Any:
    """float32, or `dtype` where that is better."""
    return jnp.promote_types(dtype, jnp.float32)


def modulated(x: Array, shift: Array, scale: Array, dtype: Any) -> Array:
    """(1 + scale) LN(x) + shift for x [B, T, D] and vectors [B, 1 or T, D]."""
    x = x.astype(wide(x.dtype))
    x = x - x.mean(axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + EPS)
    return (x * (1 + scale) + shift).astype(dtype)


def added(x: Array, gate: Array, h: Array) -> Array:
    """x + gate h, in the type of x."""
    return materialized((x + gate * h).astype(x.dtype))


def spread(vectors: Array, tokens: int, lengths: Lengths | None) -> Array:
    """Vectors [B, S, D] of S segments of `lengths` tokens each -> [B, T, D]; S = 1 stays as it is, it broadcasts."""
    segments, start, parts = vectors.shape[1], 0, []
    if lengths is None:
        if segments not in (1, tokens):
            raise ValueError(f"c has {segments} vectors for {tokens} tokens; allowed: 1, {tokens}, or give lengths")
        return vectors
    if len(lengths) != segments or sum(lengths) != tokens:
        raise ValueError(f"lengths is {lengths}; allowed: {segments} numbers, as c has, that sum to {tokens} tokens")
    # Slices and repetitions of static sizes fuse into what uses them, a gather would not.
    for n, run in itertools.groupby(lengths):
        stop = start + len(list(run))
        parts.append(jnp.repeat(vectors[:, start:stop], n, axis=1))
        start = stop
    return vectors if segments == 1 else jnp.concatenate(parts, axis=1)


class Modulation(nn.Module):
    """Equation (1): c [B, S, C] -> `parts` arrays [B, 1 or T, width] for T tokens."""

    parts: int
    width: int

    @nn.compact
    def __call__(self, c: Array, tokens: int, lengths: Lengths | None = None) -> list[Array]:
        c = nn.silu(c.astype(wide(c.dtype)))
        zeros = nn.initializers.zeros
        c = nn.Dense(self.parts * self.width, kernel_init=zeros, dtype=c.dtype, name="dense")(c)
        return [spread(part, tokens, lengths) for part in jnp.split(c, self.parts, axis=-1)]


class TimeEmbed(nn.Module):
    """t [...] -> [..., width]: 128 cosines and 128 sines, then two layers. Feed it times of up to about 1000."""

    width: int

    @nn.compact
    def __call__(self, t: Array) -> Array:
        h, init = time_features(t, 256), nn.initializers.normal(0.02)
        h = nn.silu(nn.Dense(self.width, kernel_init=init, dtype=h.dtype, name="dense_0")(h))
        return nn.Dense(self.width, kernel_init=init, dtype=h.dtype, name="dense_1")(h)


class FeedForward(nn.Module):
    """x [B, T, D] -> [B, T, D] through ratio D units with GELU (tanh form), or gated ones of as many parameters.

        gelu     W_2 GELU(W_1 x)
        swiglu   W_2 (SiLU(W_1 x) * W_3 x), with 2/3 as many units (Shazeer 2020, arXiv:2002.05202), in multiples of 8

    The biases are left out here.
    """

    kind: str = "gelu"
    ratio: float = 4.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        if self.kind == "gelu":
            h = nn.Dense(int(self.ratio * width), kernel_init=matrix, dtype=self.dtype, name="dense_0")(x)
            h = nn.gelu(h, approximate=True)
        elif self.kind == "swiglu":
            units = -(-int(self.ratio * width * 2 / 3) // 8) * 8
            h = nn.DenseGeneral((2, units), kernel_init=matrix, dtype=self.dtype, name="dense_0")(x)
            h = nn.silu(h[..., 0, :]) * h[..., 1, :]
        else:
            raise ValueError(f"mlp is {self.kind!r}; allowed: 'gelu', 'swiglu'")
        return nn.Dense(width, kernel_init=matrix, dtype=self.dtype, name="dense_1")(h)


class Stream(nn.Module):
    """What one kind of token owns in a block: everything but the attention between `show` and `update`.

    updated: False for tokens that others look at in the last block, but that are needed no more themselves.
    """

    width: int
    heads: int
    mlp: str = "gelu"
    qk_norm: bool = False
    ratio: float = 4.0
    dtype: Any = jnp.float32
    updated: bool = True

    def setup(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}; allowed: divisors of the width {self.width}")
        shape = (3 if self.updated else 2, self.heads, self.width // self.heads)
        self.modulation = Modulation(6 if self.updated else 2, self.width)
        self.qkv = nn.DenseGeneral(shape, kernel_init=matrix, dtype=self.dtype)
        # Layers that are never called have no weights.
        self.q_norm, self.k_norm = (nn.RMSNorm(epsilon=EPS, dtype=wide(self.dtype)) for _ in "qk")
        self.out = nn.DenseGeneral(self.width, axis=(-2, -1), kernel_init=matrix, dtype=self.dtype)
        self.feed_forward = FeedForward(self.mlp, self.ratio, self.dtype)

    def show(self, x: Array, c: Array, lengths: Lengths | None, rope: Tables | None) -> tuple[list[Array], list[Array]]:
        """x [B, T, D], c [B, S, C] -> q (if updated), k, v, each [B, T, H, d], and what `update` needs of (1)."""
        shift, scale, *rest = self.modulation(c, x.shape[1], lengths)
        *q, k, v = jnp.unstack(self.qkv(modulated(x, shift, scale, self.dtype)), axis=2)
        if self.qk_norm:
            q, k = [self.q_norm(a) for a in q], self.k_norm(k)
        if rope is not None:
            q, k = [rotate(a, *rope) for a in q], rotate(k, *rope)
        return [*(a.astype(self.dtype) for a in (*q, k)), v], rest

    def update(self, x: Array, seen: Array, rest: list[Array]) -> Array:
        """Equations (2) and (3), where attention gave seen [B, T, H, d]."""
        gate_1, shift, scale, gate_2 = rest
        x = added(x, gate_1, checkpoint_name(self.out(seen), "attention"))
        h = self.feed_forward(modulated(x, shift, scale, self.dtype))
        return added(x, gate_2, checkpoint_name(h, "mlp"))


class DiTBlock(nn.Module):
    """Equations (1)-(3) with one set of weights for all tokens.

    mlp: "gelu" or "swiglu" (see `FeedForward`), with ratio D units.
    qk_norm: RMS-normalise q and k of every head, against logits that grow without bound.
    implementation: see `nn.attention.attention`.
    """

    heads: int
    mlp: str = "gelu"
    qk_norm: bool = False
    ratio: float = 4.0
    dtype: Any = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        c: Array,
        lengths: Lengths | None = None,
        rope: Tables | None = None,
        mask: Array | None = None,
    ) -> Array:
        """x [B, T, D] -> [B, T, D].

        c: [B, S, C], what conditions each of S contiguous segments of tokens. S = 1 is for all, S = T for one each.
        lengths: of the segments, where S is neither 1 nor T.
        rope: cosines and sines [T, d / 2] of `nn.rope.tables`.
        mask: bool, broadcastable to [B, H, T, T] (four axes), True = visible.
        """
        stream = Stream(x.shape[-1], self.heads, self.mlp, self.qk_norm, self.ratio, self.dtype, name="stream")
        qkv, rest = stream.show(x, c, lengths, rope)
        return stream.update(x, watched(self, *qkv, mask, self.implementation), rest)


class JointBlock(nn.Module):
    """Equations (1)-(3) with weights of their own for every stream of tokens, and attention over all of them together.

    streams: their names, in the order in which their tokens are put side by side.
    seen_only: those that the others look at for the last time; the block returns only the others.
    The other options are those of `DiTBlock`.
    """

    heads: int
    streams: tuple[str, ...]
    seen_only: tuple[str, ...] = ()
    mlp: str = "gelu"
    qk_norm: bool = False
    ratio: float = 4.0
    dtype: Any = jnp.float32
    implementation: str | None = None

    @nn.compact
    def __call__(
        self, x: Mapping[str, Array], c: Mapping[str, Array], rope: Mapping[str, Tables] | None = None
    ) -> dict[str, Array]:
        """x[m] [B, T_m, D], c[m] [B, 1 or T_m, C] -> {m: [B, T_m, D]}. rope[m]: tables, for some or all streams."""
        shared = (self.heads, self.mlp, self.qk_norm, self.ratio, self.dtype)
        own = {m: Stream(x[m].shape[-1], *shared, updated=m not in self.seen_only, name=m) for m in self.streams}
        shown = {m: own[m].show(x[m], c[m], None, (rope or {}).get(m)) for m in self.streams}
        updated = [m for m in self.streams if m not in self.seen_only]
        q = jnp.concatenate([shown[m][0][0] for m in updated], axis=1)
        k, v = (jnp.concatenate([shown[m][0][i] for m in self.streams], axis=1) for i in (-2, -1))
        seen = watched(self, q, k, v, implementation=self.implementation)
        ends = np.cumsum([x[m].shape[1] for m in updated])
        seen = dict(zip(updated, jnp.split(seen, ends[:-1], axis=1), strict=True))
        return {m: own[m].update(x[m], seen[m], shown[m][1]) for m in updated}


class Head(nn.Module):
    """x [B, T, D], c [B, S, C] -> [B, T, outputs] in float32 or better: a norm with shift and scale, then a linear map.

    lengths: as in `DiTBlock`.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: Array, c: Array, lengths: Lengths | None = None) -> Array:
        shift, scale = Modulation(2, x.shape[-1], name="modulation")(c, x.shape[1], lengths)
        x = modulated(x, shift, scale, shift.dtype)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros, dtype=x.dtype, name="dense")(x)


class Stack(nn.Module):
    """`depth` blocks one after the other, each with weights of its own, compiled once: Stack(DiTBlock(heads=6), 12).

    The weights of all blocks are stacked along a first axis of size `depth`, under the name "layers".

    remat: what the backward pass keeps of a block instead of computing it again. None: everything. "full": its input.
        "names": that, and what attention and the MLP gave. "dots": that, and every product with a matrix of weights.
    """

    block: nn.Module
    depth: int
    remat: str | None = None

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """x is what the block returns in its place; the other arguments are the same for all blocks."""
        return self.tapped((), x, *args, **kwargs)[0]

    @nn.compact
    def tapped(self, depths: tuple[int, ...], x: Any, *args: Any, **kwargs: Any) -> tuple[Any, dict[int, Any]]:
        """The same, and what x was after so many blocks, for each of `depths`."""
        if self.remat is not None and self.remat not in REMAT:
            raise ValueError(f"remat is {self.remat!r}; allowed: {', '.join(map(repr, REMAT))} or None")

        def body(block: nn.Module, carry: tuple[Any, dict[int, Any]], count: Array) -> tuple[tuple, None]:
            x, kept = carry
            x = block(x, *args, **kwargs)
            # Chosen on the way: to stack them all and choose later would hold what every block gave.
            choose = {depth: functools.partial(jnp.where, count == depth) for depth in kept}
            return (x, {depth: jax.tree.map(choose[depth], x, old) for depth, old in kept.items()}), None

        if self.remat is not None:
            body = nn.remat(body, policy=REMAT[self.remat], prevent_cse=False)
        # All in one turn, what remat computes again would be merged with the first time, and kept after all.
        unroll = at_once(self.depth) if self.remat is None else 1
        axes = {"params": 0, SOWN: 0}
        scan = nn.scan(body, variable_axes=axes, split_rngs={"params": True}, length=self.depth, unroll=unroll)
        # A copy: the block may have been made inside another module, and belong to it.
        block, counts = self.block.clone(parent=self, name="layers"), jnp.arange(1, self.depth + 1)
        return scan(block, (x, dict.fromkeys(depths, x)), counts)[0]
