"""Making one modality after the other: what is given, and what is made already, is the prefix of what comes next.

The prefix does not see what follows (`tasks.py`), so it goes through the network once, and its keys and values serve
all further calls. Masks are filled in calls on the slots of the new modality alone (the prefix cache); what is written
token by token is a call on one slot each, whose keys and values are kept as well (the key-value cache). Without a cache
everything goes through the network every time: slower, with the same tokens.

Guidance (`decoding.py`, equation 5) puts its branches side by side: the same rows with parts of the prefix unseen.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mmgen_jax.nn import maskgit
from mmgen_jax.nn.decoder import NOWHERE
from mmgen_jax.nn.transformer import END, PADDING
from mmgen_jax.rng import fold_name
from mmgen_jax.tokens.decoding import NEVER, Choice, Step, beam, guided, in_random_order, write
from mmgen_jax.tokens.network import Sequence, TokenTransformer
from mmgen_jax.types import Array, Key, Params

Values = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Scene:
    """A modality that is to be made: everything that its decoding may ask for.

    slots: of all other modalities, {m: [B, T_m + 1]}; ranks: theirs in each of K branches, {m: [B, K]}, 0 or `NOWHERE`.
    start: its tokens [B, T], with the mask where there are none yet.
    """

    network: TokenTransformer
    params: Params
    name: str
    slots: Values
    ranks: Values
    scales: tuple[float, ...]
    start: Array
    cached: bool

    @property
    def sequence(self) -> Sequence:
        return self.network.sequences[self.name]

    @property
    def branches(self) -> int:
        return 1 + len(self.scales)

    def predict(self) -> Callable[[Array], Array]:
        """tokens -> logits, [B, T] -> [B, T, V], for tokens with masks among them."""
        others, rank = self._prefix(), self._prefix_rank()
        if not self.cached:
            return lambda tokens: self._combined(self._all(others, rank, self._slots(tokens), written=False)[:, 1:])
        count, room = rank.shape[1], self.sequence.length + 1
        memory = self._apply(others, rank, room, method="remember")
        seen = jnp.pad(rank == 0, ((0, 0), (0, room)), constant_values=True)[:, None, None]
        mask = jnp.broadcast_to(seen, (len(rank), 1, room, count + room))

        def predict(tokens: Array) -> Array:
            logits, _ = self._apply(self.name, self._slots(tokens), memory, count, mask, method="extend")
            return self._combined(logits[:, 1:])

        return predict

    def writing(self) -> tuple[Step, Any]:
        """A `decoding.Step` and its memory before the first token."""
        others, rank = self._prefix(), self._prefix_rank()
        count, room = rank.shape[1], self.sequence.length + 1
        if not self.cached:

            def again(memory: Any, tokens: Array, i: Array) -> tuple[Array, Any]:
                logits = self._all(*self._rows(memory), self._slots(tokens), written=True)
                return self._next(jax.lax.dynamic_slice_in_dim(logits, i, 1, axis=1)), memory

            return again, self._apart((others, rank))

        def step(memory: Any, tokens: Array, i: Array) -> tuple[Array, Any]:
            (k, v), seen = self._rows(memory)
            ids = jax.lax.dynamic_slice_in_dim(self._slots(tokens), i, 1, axis=1)
            own = jnp.broadcast_to((jnp.arange(room) <= i)[None], (len(seen), room))
            mask = jnp.concatenate([seen, own], axis=1)[:, None, None]
            logits, kept = self._apply(self.name, ids, (k, v), count + i, mask, i[None], method="extend")
            return self._next(logits), self._apart((kept, seen))

        return step, self._apart((self._apply(others, rank, room, method="remember"), rank == 0))

    def _all(self, others: Values, rank: Array, slots: Array, *, written: bool) -> Array:
        """Logits at all slots of the modality, from everything, [B K, T + 1, V]."""
        place = jnp.arange(slots.shape[1])[None] * written + 1
        ranks, start = {self.name: jnp.broadcast_to(place, slots.shape)}, 0
        for name in sorted(others):
            stop = start + others[name].shape[1]
            ranks[name], start = rank[:, start:stop], stop
        together = jnp.concatenate([ranks[name] for name in sorted(ranks)], axis=1)
        return self._apply({**others, self.name: slots}, together)[self.name]

    def _prefix(self) -> dict[str, Array]:
        """The slots of the other modalities in all branches, [B K, T_m + 1]."""
        return {name: jnp.repeat(self.slots[name], self.branches, axis=0) for name in sorted(self.slots)}

    def _prefix_rank(self) -> Array:
        """Their ranks, [B K, P]."""
        parts = [
            jnp.repeat(self.ranks[name].reshape(-1, 1), self.slots[name].shape[1], axis=1)
            for name in sorted(self.slots)
        ]
        return jnp.concatenate([jnp.zeros((len(self.start) * self.branches, 0), jnp.int32), *parts], axis=1)

    def _slots(self, tokens: Array) -> Array:
        return jnp.repeat(self.sequence.slots(tokens), self.branches, axis=0)

    def _combined(self, logits: Array) -> Array:
        """Logits [B K, ...] of all branches as those of one, [B, ...]."""
        if not self.scales:
            return logits
        return guided(jnp.moveaxis(logits.reshape(-1, self.branches, *logits.shape[1:]), 1, 0), self.scales)

    def _next(self, logits: Array) -> Array:
        """[B K, 1, V] -> [B, V]: what is written next; padding follows from the end, and is no symbol here."""
        logits = self._combined(logits)[:, 0]
        return logits.at[:, PADDING].set(NEVER) if self.sequence.ends else logits

    def _apart(self, memory: Any) -> Any:
        """Leaves [B K, ...] as [B, K, ...], so that rows can be chosen among."""
        return jax.tree.map(lambda x: x.reshape(-1, self.branches, *x.shape[1:]), memory)

    def _rows(self, memory: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), memory)

    def _apply(self, *args: Any, method: str | None = None) -> Any:
        return self.network.apply({"params": self.params}, *args, method=method)


class Decoding(Protocol):
    """A frozen dataclass that makes the tokens [B, T] of a scene."""

    def __call__(self, key: Key, scene: Scene) -> Array: ...


@dataclasses.dataclass(frozen=True)
class MaskGIT:
    """In `steps` steps, most certain first (`nn/maskgit.py`); temperature: of the confidence, in the first step."""

    steps: int = 8
    temperature: float = 4.5
    schedule: maskgit.Unmasking = "cosine"
    choice: Choice = Choice()

    def __post_init__(self) -> None:
        maskgit.masks_left(1, self.steps, self.schedule)  # says what is wrong with them
        if self.choice.penalty != 1:
            raise ValueError(f"MaskGIT: choice has penalty {self.choice.penalty}, but must have 1: it fills in")

    def __call__(self, key: Key, scene: Scene) -> Array:
        predict, mask = scene.predict(), scene.sequence.mask
        return maskgit.decode(
            key, lambda tokens: self.choice.logits(predict(tokens)), scene.start, self.steps, mask,
            temperature=self.temperature, schedule=self.schedule,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RandomOrder:
    """In `steps` steps, in random order."""

    steps: int = 8
    choice: Choice = Choice()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"RandomOrder: steps is {self.steps}, but must be at least 1")

    def __call__(self, key: Key, scene: Scene) -> Array:
        return in_random_order(key, scene.predict(), scene.start, self.steps, scene.sequence.mask, self.choice)


@dataclasses.dataclass(frozen=True)
class Write:
    """One after the other."""

    choice: Choice = Choice()

    def __call__(self, key: Key, scene: Scene) -> Array:
        end = END if scene.sequence.ends else None
        return write(key, *scene.writing(), *scene.start.shape, self.choice, end=end, padding=PADDING)


@dataclasses.dataclass(frozen=True)
class Beam:
    """The most probable sequence among those of a beam; penalty: of `decoding.beam`."""

    width: int = 4
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"Beam: width is {self.width}, but must be at least 1")

    def __call__(self, key: Key, scene: Scene) -> Array:
        end = END if scene.sequence.ends else None
        fields = {"end": end, "padding": PADDING, "penalty": self.penalty}
        return beam(*scene.writing(), *scene.start.shape, self.width, **fields)[0][:, 0]


@functools.partial(jax.jit, static_argnames=("model", "wanted", "cached"))
def make(
    model: Any,
    wanted: tuple[str, ...],
    params: Params,
    tokens: Values,
    present: Values,
    key: Key,
    start: Values | None = None,
    *,
    cached: bool = True,
) -> dict[str, Array]:
    """Tokens {m: [B, T_m]} of the modalities `wanted`, from tokens of those that are present: the shorter ones first.

    start: tokens of some that are wanted, [B, T_m], with masks where they are to be filled in.
    """
    tokens, there, made, sequences = dict(tokens), dict(present), {}, model.sequences
    for name in sorted(wanted, key=lambda name: (sequences[name].length, name)):
        others = {other: sequences[other].slots(tokens[other]) for other in sequences if other != name}
        begin = (start or {}).get(name, jnp.full_like(tokens[name], sequences[name].mask))
        ranks, scales = ranks_in_branches(model, {other: there[other] for other in others})
        scene = Scene(model.network, params, name, others, ranks, scales, begin, cached)
        made[name] = model.decoding_of(name)(fold_name(key, name), scene)
        if sequences[name].ends:
            over = jnp.cumsum(made[name] == END, axis=1) - (made[name] == END) > 0
            made[name] = jnp.where(over, PADDING, made[name])
        tokens[name] = jnp.where(present[name][:, None], tokens[name], made[name])
        there[name] = jnp.ones_like(present[name])
    return made


def ranks_in_branches(model: Any, there: Values) -> tuple[dict[str, Array], tuple[float, ...]]:
    """Which modalities are seen in which branch, as ranks {m: [B, K]}, and the scales of all branches but the first.

    With `model.guidance`, the first sees nothing and the second all. With `model.scales`, the modalities in it are seen
    in one branch each, and all others in all branches.
    """
    if model.scales:
        names = sorted(model.scales)
        scales = tuple(model.scales[name] for name in names)
        always = {name: name not in names for name in there}
        seen = {name: [always[name], *(always[name] or name == other for other in names)] for name in there}
    elif model.guidance != 1:
        scales, seen = (model.guidance,), dict.fromkeys(there, [False, True])
    else:
        scales, seen = (), dict.fromkeys(there, [True])
    ranks = {name: jnp.where(there[name][:, None] & jnp.array(seen[name])[None], 0, NOWHERE) for name in there}
    return ranks, scales
