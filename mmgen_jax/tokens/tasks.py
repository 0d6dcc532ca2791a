"""What the network is trained to do, drawn anew for every example: fill in masks, or write on, after some of the rest.

The present modalities are put in random order. The first k of them, k uniform, are the prefix: all of it sees all of
it, and nothing else. Then, each with its share of the examples,

    masked           the next t modalities, t uniform, have round up(T cos(pi r / 2)) masks each, r uniform (Chang et
                     al. 2022, arXiv:2202.04200). They see the prefix and each other; the loss is at the masks      (1)
    autoregressive   all others follow, token by token; a token sees what is before it, and the loss is at all      (2)

so one network learns any modality given any others, and its prefix never depends on what follows it. What is only in
the prefix gets no loss; what is missing is never drawn.

With budgets (Mizrahi et al. 2023, arXiv:2312.06647), at most `inputs` slots of the prefix take part, in shares of the
modalities drawn from a symmetric Dirichlet distribution (alpha = 1/2), and at most `targets` others: of (1) any, of
(2) the first. Sizes stay the same whatever is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.nn.decoder import NOWHERE
from mmgen_jax.nn.transformer import PADDING
from mmgen_jax.rng import fold_name
from mmgen_jax.tokens.network import Sequence
from mmgen_jax.types import Array, Key

ALPHA = 0.5  # of the Dirichlet distribution


@flax.struct.dataclass
class Task:
    """Examples as the network sees them: slots {m: [B, T_m + 1]}, the rank of all slots [B, S], and at each slot of m
    the symbol that is right, int [B, T_m + 1], and whether it counts, bool. `chosen`: [B, N], the slots that take part.
    `written`: bool [B], which examples are autoregressive."""

    slots: dict[str, Array]
    rank: Array
    right: dict[str, Array]
    counts: dict[str, Array]
    chosen: Array | None
    written: Array


@dataclasses.dataclass(frozen=True)
class Tasks:
    """How tasks are drawn.

    Attributes:
        autoregressive: the share of examples with (2); the others have (1).
        inputs, targets: the budgets, in slots; None for no limit.

    Raises:
        ValueError: a share is not within 0 and 1, a budget below 1, or only one is given.
    """

    autoregressive: float = 0.5
    inputs: int | None = None
    targets: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.autoregressive <= 1:
            raise ValueError(f"Tasks: autoregressive is {self.autoregressive}, but must be from 0 to 1")
        if (self.inputs is None) != (self.targets is None):
            raise ValueError(
                f"Tasks: inputs is {self.inputs} and targets {self.targets}, but both or none must be None"
            )
        for field in ("inputs", "targets"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"Tasks: {field} is {value}, but must be at least 1, or None")

    def draw(
        self, key: Key, sequences: Mapping[str, Sequence], tokens: Mapping[str, Array], present: Mapping[str, Array]
    ) -> Task:
        """A task for each example: tokens {m: int [B, T_m]}, present {m: bool [B]}."""
        names, n = sorted(sequences), len(next(iter(present.values())))
        keys = {part: fold_name(key, part) for part in ("order", "split", "kind", "masks", "budget")}
        there = jnp.stack([present[name] for name in names], axis=1)  # [B, M]
        place = _order(keys["order"], there)
        total, u = there.sum(axis=1, keepdims=True), jax.random.uniform(keys["split"], (n, 2))
        prefix = jnp.floor(u[:, :1] * total)
        last = prefix + 1 + jnp.floor(u[:, 1:] * (total - prefix))
        written = jax.random.bernoulli(keys["kind"], self.autoregressive, (n,))
        given = there & (place < prefix)
        made = there & (place >= prefix) & (written[:, None] | (place < last))
        parts = [
            _slots(fold_name(keys["masks"], name), sequences[name], tokens[name], made[:, i], written)
            for i, name in enumerate(names)
        ]
        longest = max(sequence.length for sequence in sequences.values()) + 1
        ranks = [
            _rank(sequences[name].length + 1, given[:, i], made[:, i], written, place[:, i] * longest)
            for i, name in enumerate(names)
        ]
        slots, right, counts = (dict(zip(names, part, strict=True)) for part in zip(*parts, strict=True))
        rank, chosen = jnp.concatenate(ranks, axis=1), None
        if self.inputs is not None:
            rank, chosen = self._within_budget(keys["budget"], rank, names, sequences, given, written)
            ends = np.cumsum([sequences[name].length + 1 for name in names])[:-1]
            taken = dict(zip(names, jnp.split(rank < NOWHERE, ends, axis=1), strict=True))
            counts = {name: counts[name] & taken[name] for name in names}
        return Task(slots, rank, right, counts, chosen, written)

    def _within_budget(
        self, key: Key, rank: Array, names: list[str], sequences: Mapping[str, Sequence], given: Array, written: Array
    ) -> tuple[Array, Array]:
        """The ranks with `NOWHERE` for what is left out, and the numbers of the slots that stay, [B, N]."""
        keys = jax.random.split(key, 3)
        shares = jax.random.gamma(keys[0], ALPHA, given.shape) * given
        shares = shares / jnp.maximum(shares.sum(axis=1, keepdims=True), 1e-30)
        noise = jax.random.uniform(keys[1], rank.shape)
        allowed, start = [], 0
        for i, name in enumerate(names):  # in each modality, a random choice of as many slots as it has a share
            stop = start + sequences[name].length + 1
            allowed.append(_ranking(noise[:, start:stop]) < jnp.floor(shares[:, i : i + 1] * self.inputs))
            start = stop
        inputs = (rank == 0) & jnp.concatenate(allowed, axis=1)
        targets = (rank > 0) & (rank < NOWHERE)
        first = jnp.where(written[:, None], rank.astype(noise.dtype), jax.random.uniform(keys[2], rank.shape))
        targets &= _ranking(jnp.where(targets, first, jnp.inf)) < self.targets
        taken = inputs | targets
        size = min(self.inputs + self.targets, rank.shape[1])
        return jnp.where(taken, rank, NOWHERE), jax.lax.top_k(taken.astype(jnp.float32), size)[1]


def _order(key: Key, there: Array) -> Array:
    """For every modality its number in a random order of those that are there, [B, M]; the others come after."""
    return _ranking(jnp.where(there, jax.random.uniform(key, there.shape), 2.0))


def _ranking(x: Array) -> Array:
    """How many values of its row are smaller than each, int [B, n]."""
    return jnp.argsort(jnp.argsort(x, axis=1), axis=1)


def _slots(key: Key, sequence: Sequence, tokens: Array, made: Array, written: Array) -> tuple[Array, Array, Array]:
    """The slots of a modality [B, T + 1], what is right there, and whether it counts."""
    many, noise = jax.random.split(key)
    ratio = jnp.cos(jnp.pi / 2 * jax.random.uniform(many, (len(tokens), 1)))
    hidden = _ranking(jax.random.uniform(noise, tokens.shape)) < jnp.ceil(ratio * tokens.shape[1])
    hidden &= (made & ~written)[:, None]
    follows = (made & written)[:, None] & (tokens != PADDING if sequence.ends else jnp.ones_like(hidden))
    after, before = ((0, 0), (0, 1)), ((0, 0), (1, 0))
    slots = sequence.slots(jnp.where(hidden, sequence.mask, tokens))
    right = jnp.where(written[:, None], jnp.pad(tokens, after), jnp.pad(tokens, before))
    return slots, right, jnp.pad(hidden, before) | jnp.pad(follows, after)


def _rank(slots: int, given: Array, made: Array, written: Array, first: Array) -> Array:
    """The ranks of the slots of a modality, [B, slots]."""
    count = jnp.arange(slots)[None]
    rank = jnp.where(written[:, None], 1 + first[:, None] + count, 1)
    return jnp.where(given[:, None], 0, jnp.where(made[:, None], rank, NOWHERE)).astype(jnp.int32)
