"""The network of the token family: sequences of symbols of any modalities, one after the other, through one decoder.

    slots of m    begin_m, token_1, ..., token_T                                                                    (1)
    h             sqrt(D) table_m(symbol) + e_m + [cos(f p), sin(f p)],   p the place of the token                  (2)
    logits        head_m(RMSNorm(decoder(h)))                                                                       (3)

Tables begin with entries of variance 1 / D, so the root makes symbols as loud as places (`modalities/places.py`). Every
modality has a table and a head of its own, so that a softmax is over its own symbols only. At a slot with a mask
the logits are of what is under it; at any other of the token that follows. Who sees whom is told by ranks
(`nn/decoder.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.nn.decoder import Cache, Decoder, sees
from mmgen_jax.nn.embed import TokenEmbed, TokenHead
from mmgen_jax.nn.rope import tables
from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Sequence:
    """A modality as symbols: how many kinds, where each stands on `places.AXES` [T, 4], and whether a text ends."""

    size: int
    places: np.ndarray
    ends: bool = False  # whether the symbols END and PADDING of `nn.transformer` are among them
    stages: int = 1  # symbols at each place

    @property
    def length(self) -> int:
        return len(self.places)

    @property
    def mask(self) -> int:
        return self.size

    @property
    def begin(self) -> int:
        return self.size + 1

    def slots(self, tokens: Array) -> Array:
        """Tokens [B, T], or masks, after the symbol that begins: (1), [B, T + 1]."""
        return jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=self.begin)

    def table(self, width: int) -> np.ndarray:
        """The cosines, then the sines, of the places of all slots, [T + 1, width]."""
        places = np.concatenate([self.places[:1], self.places])
        return np.concatenate(tables(places, width), axis=-1)


class TokenTransformer(nn.Module):
    """Symbols of all modalities -> logits, for training; or piece by piece with a memory, for decoding.

    groups: heads of keys and values.
    """

    sequences: Mapping[str, Sequence]
    width: int
    depth: int
    heads: int
    groups: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        normal = nn.initializers.normal(0.02)
        names = sorted(self.sequences)
        self.tables = {n: TokenEmbed(self.sequences[n].size + 2, self.width, self.dtype, name=f"{n}_in") for n in names}
        self.heads_of = {n: TokenHead(self.sequences[n].size, self.dtype, name=f"{n}_out") for n in names}
        self.marks = {n: self.param(f"{n}_mark", normal, (self.sequences[n].stages, self.width)) for n in names}
        self.norm = nn.RMSNorm(dtype=self.dtype)
        self.decoder = Decoder(self.depth, self.heads, self.groups, self.dtype)

    def __call__(self, slots: Mapping[str, Array], rank: Array, chosen: Array | None = None) -> dict[str, Array]:
        """Equation (3), {m: [B, T_m + 1, symbols]}, of slots {m: int [B, T_m + 1]} with ranks int [B, all slots].

        chosen: int [B, N], different slots of all: only these take part. Others get logits that mean nothing.
        """
        names = sorted(slots)
        h, rope = self.beside({name: self.embed(name, slots[name]) for name in names})
        if chosen is None:
            out, _ = self.decoder(h, sees(rank, rank), rope)
        else:
            rows, own = jnp.arange(len(h))[:, None], jnp.take_along_axis(rank, chosen, axis=1)
            few, _ = self.decoder(h[rows, chosen], sees(own, own), tuple(part[chosen] for part in rope))
            out = jnp.zeros_like(h).at[rows, chosen].set(few)
        ends = np.cumsum([slots[name].shape[1] for name in names])
        return {n: self.logits(n, part) for n, part in zip(names, jnp.split(out, ends[:-1], axis=1), strict=True)}

    def embed(self, name: str, ids: Array, at: Array | None = None) -> Array:
        """Equation (2), [B, n, D], of symbols [B, n] in all slots of a modality, or in those with numbers `at` [n]."""
        sequence = self.sequences[name]
        stages = np.arange(sequence.length + 1) % sequence.stages
        place = self.marks[name][stages] + jnp.asarray(sequence.table(self.width), jnp.float32)
        symbol = self.width**0.5 * self.tables[name](ids)
        return symbol + (place if at is None else place[at])[None].astype(self.dtype)

    def rope(self, name: str, at: Array | None = None) -> tuple[Array, Array]:
        """Cosines and sines for the heads, [n, d / 2] each."""
        table = jnp.asarray(self.sequences[name].table(self.width // self.heads), jnp.float32)
        return tuple(jnp.split(table if at is None else table[at], 2, axis=-1))

    def beside(self, parts: Mapping[str, Array]) -> tuple[Array, tuple[Array, Array]]:
        """The slots of some modalities, {m: [B, T_m + 1, D]}, in one sequence, and its table of turns."""
        turns = zip(*(self.rope(name) for name in parts), strict=True)
        return jnp.concatenate(list(parts.values()), axis=1), tuple(jnp.concatenate(part) for part in turns)

    def logits(self, name: str, h: Array) -> Array:
        """Equation (3), [B, n, symbols] in float32."""
        return self.heads_of[name](self.norm(h))

    def remember(self, slots: Mapping[str, Array], rank: Array, room: int) -> Cache:
        """The memory of what is given, slots {m: [B, T_m + 1]} with ranks [B, P], and room for as many slots more."""
        if not slots:
            return self.decoder.nothing(len(rank), room, self.width)
        h, rope = self.beside({name: self.embed(name, slots[name]) for name in sorted(slots)})
        _, (k, v) = self.decoder(h, sees(rank, rank), rope)
        more = ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))
        return jnp.pad(k, more), jnp.pad(v, more)

    def extend(
        self, name: str, ids: Array, memory: Cache, start: Array | int, mask: Array, at: Array | None = None
    ) -> tuple[Array, Cache]:
        """Logits [B, n, symbols] at further slots with symbols [B, n], which are remembered from `start` on.

        mask: bool [B, 1, n, slots of the memory]. at: the numbers [n] of the slots among those of the modality.
        """
        h, memory = self.decoder(self.embed(name, ids, at), mask, self.rope(name, at), memory, start)
        return self.logits(name, h), memory
