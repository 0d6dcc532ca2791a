"""The joint transformer: any number of modalities in one sequence, each with noise levels of its own.

    h_m = tokens_m(x_m) + e_m + [cos(f p_m), sin(f p_m)]          every modality becomes tokens [B, T_m, D]         (1)
    c_m = time_m(s t_m) + G mean_k time_k(s t_k) + sum_k V_k SiLU(U_k mean (1 - t_k) tokens_k(x_k))
                                                                  what it is conditioned on, G = V = 0 at first     (2)
    h   = blocks with weights of their own for each modality, then blocks that all share; attention over all tokens (3)
    out_m = head_m(modulated norm(h_m, c_m))                      0 at first                                        (4)

c_m has its own time for the scale of its own output, the mean over all for how clean the rest is, and a summary of what
is clean, as SD3 has of its sentences: what attention would have to find first is read in half of the steps. s = 1000
tells times well apart, and s = 1 keeps the output smooth in them, which derivatives by time need. (3) are the blocks of
MM-DiT (Esser et al. 2024, arXiv:2403.03206) and DiT (Peebles and Xie 2022, arXiv:2212.09748). There is no attention
mask: a modality that is not there is noise.

Positions p are on the axes second, row, column and index: those of sound and video in seconds, so that what happens
together stands together. Attention is told their differences (rotary), and (1), as in DiT, where a token stands in the
whole: every axis has channels and frequencies f of its own, the same ones in all modalities (`nn/rope.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities.places import place_vectors, places, symbols
from mmgen_jax.nn.dit import DiTBlock, JointBlock, Modulation, Stack, TimeEmbed, modulated
from mmgen_jax.nn.rope import tables
from mmgen_jax.types import Array, Modality


def value_times(modality: Modality, t: Array) -> Array:
    """Times of examples [B] or of tokens [B, T] as those of values: [B, 1, ...] or [B, *shape]."""
    return t.reshape(-1, *(1,) * len(modality.shape)) if t.ndim == 1 else t[:, modality.token_of()]


class JointTransformer(nn.Module):
    """x[m] [B, *shape] at times t[m] [B] (or [B, T_m]: each token at its own) -> out[m].

    Real values are standardised ones, and out is a velocity of their shape. Symbols are int32 with the mask among them,
    and out are logits [B, *shape, symbols]. The order of the names changes nothing.

    Attributes:
        joint: blocks with weights for each modality.
        depth: blocks that follow, with weights for all.
        spans: whether a second time of each modality matters, how far a step goes (`objective.py`).
        scale: s of equation (2).
        implementation: of attention.
    """

    modalities: Mapping[str, Modality]
    width: int
    joint: int
    depth: int
    heads: int
    mlp: str = "gelu"
    spans: bool = False
    scale: float = 1000.0
    remat: str | None = None
    implementation: str | None = None
    dtype: Any = jnp.float32

    def __call__(
        self, x: Mapping[str, Array], t: Mapping[str, Array], spans: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        return self.tapped(x, t, spans)[0]

    @nn.compact
    def tapped(
        self,
        x: Mapping[str, Array],
        t: Mapping[str, Array],
        spans: Mapping[str, Array] | None = None,
        depths: tuple[int, ...] = (),
    ) -> tuple[dict[str, Array], dict[int, Array]]:
        """The same, and the tokens of all modalities [B, T, D] after so many blocks, for each of `depths`."""
        names = sorted(self.modalities)
        h = {name: self._tokens(name, x[name]) for name in names}
        summary = sum(self._summary(name, h[name], t[name]) for name in names)
        c = {name: own + summary for name, own in self._conditions(names, t, "time").items()}
        if self.spans:
            spans = {name: jnp.zeros_like(t[name]) for name in names} if spans is None else spans
            c = {name: c[name] + more for name, more in self._conditions(names, spans, "span").items()}
        h, kept = self._blocks(h, c, depths)
        return {name: self._out(name, h[name], c[name]) for name in names}, kept

    def _blocks(
        self, h: dict[str, Array], c: dict[str, Array], depths: tuple[int, ...]
    ) -> tuple[dict[str, Array], dict[int, Array]]:
        """Equation (3), and the tokens of all modalities after each of `depths` blocks."""
        names, early, late = sorted(h), {}, {}
        rope = {name: tables(places(self.modalities[name]), self.width // self.heads) for name in names}
        options = {
            "heads": self.heads,
            "mlp": self.mlp,
            "qk_norm": True,
            "dtype": self.dtype,
            "implementation": self.implementation,
        }
        if self.joint:
            blocks = Stack(JointBlock(streams=tuple(names), **options), self.joint, self.remat, name="joint")
            h, early = blocks.tapped(tuple(d for d in depths if d <= self.joint), h, c, rope)
        if self.depth:
            lengths = sum((segments(h[name], c[name]) for name in names), ())
            turns = tuple(np.concatenate(part) for part in zip(*(rope[name] for name in names), strict=True))
            blocks = Stack(DiTBlock(**options), self.depth, self.remat, name="shared")
            rest = tuple(d - self.joint for d in depths if d > self.joint)
            together, late = blocks.tapped(rest, joined(h), joined(c), lengths, turns)
            ends = np.cumsum([h[name].shape[1] for name in names])
            h = dict(zip(names, jnp.split(together, ends[:-1], axis=1), strict=True))
        return h, {d: joined(x) for d, x in early.items()} | {d + self.joint: x for d, x in late.items()}

    def _tokens(self, name: str, x: Array) -> Array:
        """Equation (1)."""
        modality = self.modalities[name]
        embed = modality.tokens_in(self.width, self.dtype).clone(parent=self, name=f"{name}_in")
        mark = self.param(f"{name}_mark", nn.initializers.normal(0.02), (self.width,))
        place = (mark[None] + jnp.asarray(place_vectors(modality, self.width), mark.dtype))[None].astype(self.dtype)
        if symbols(modality) is None:
            return embed(x.astype(self.dtype)) + place
        masked = x == symbols(modality)
        # Tables begin with entries of variance 1 / D: the root makes symbols as loud as places, or they are not read.
        tokens = self.width**0.5 * embed(jnp.where(masked, 0, x))
        mask = self.param(f"{name}_mask", nn.initializers.normal(0.02), (self.width,)).astype(self.dtype)
        return jnp.where(masked.reshape(*tokens.shape[:2], 1), mask[None, None], tokens) + place

    def _summary(self, name: str, h: Array, t: Array) -> Array:
        """The last term of equation (2) for one modality: tokens [B, T, D] at times [B] or [B, T] -> [B, 1, D]."""
        clean = (1 - (t if t.ndim == 2 else t[:, None]))[..., None]
        mean = (clean * h).mean(axis=1, keepdims=True)
        inside = nn.silu(nn.Dense(self.width, dtype=mean.dtype, name=f"{name}_summary")(mean))
        zeros = nn.initializers.zeros  # a random start disturbs: symbols are read later than without a summary
        return nn.Dense(self.width, kernel_init=zeros, dtype=mean.dtype, name=f"{name}_told")(inside)

    def _conditions(self, names: list[str], t: Mapping[str, Array], kind: str) -> dict[str, Array]:
        """The times of equation (2): [B, 1, D], or [B, T_m, D] where every token has one."""
        own = {}
        for name in names:
            times = t[name] if t[name].ndim == 2 else t[name][:, None]
            own[name] = TimeEmbed(self.width, name=f"{name}_{kind}")(self.scale * times)
        mean = sum(c.mean(axis=1, keepdims=True) for c in own.values()) / len(own)
        context = nn.Dense(self.width, use_bias=False, kernel_init=nn.initializers.zeros, name=f"{kind}_context")(mean)
        return {name: c + context for name, c in own.items()}

    def _out(self, name: str, h: Array, c: Array) -> Array:
        """Equation (4)."""
        head = self.modalities[name].tokens_out(self.dtype).clone(parent=self, name=f"{name}_out")
        shift, scale = Modulation(2, self.width, name=f"{name}_modulation")(c, h.shape[1])
        return head(modulated(h, shift, scale, self.dtype)).astype(jnp.float32)


def joined(h: Mapping[str, Array]) -> Array:
    """The tokens of all modalities in one sequence, in the order of their names."""
    return jnp.concatenate([h[name] for name in sorted(h)], axis=1)


def segments(h: Array, c: Array) -> tuple[int, ...]:
    """Of how many tokens [B, T, D] each condition [B, S, D] is: all of them (S = 1), or one each (S = T)."""
    return (h.shape[1],) if c.shape[1] == 1 else (1,) * h.shape[1]
