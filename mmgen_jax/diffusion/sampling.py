"""From noise to samples: all wanted modalities at once, real values and symbols, in one compiled scan over the grid.

At each step from t to s real values move as the sampler says, and each mask becomes a symbol with probability
(t - s) / t, drawn from what the network says is under it. What is given stays clean at t = 0; what is neither given nor
wanted stays noise at t = 1. Of what is wanted, parts may be kept, or a beginning be given (`editing.py`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.diffusion.guidance import Branch
from mmgen_jax.diffusion.masked import corrupt, unmask
from mmgen_jax.diffusion.network import symbols, value_times
from mmgen_jax.diffusion.paths import Denoised, noised
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Modality, Params

Values = dict[str, Array]
SIDES = ("data", "noise")


@functools.partial(jax.jit, static_argnames=("model", "wanted", "given", "start"))
def integrate(
    model: Any,
    wanted: tuple[str, ...],
    given: frozenset[str],
    params: Params,
    batch: Batch,
    key: Key,
    weak: Params | None = None,
    kept: Mapping[str, Array] = FrozenDict(),
    start: float = 1.0,
) -> Values:
    """The modalities `wanted` of a `Flow`, [B, *shape] each, given what is present of a batch.

    given: the names that may be present: what guidance can let the network see or not.
    weak: the parameters of a worse network to be guided away from.
    kept: bool [B, *shape] by names of `wanted`: what else is made must fit the values that the batch has there.
    start: the time to begin at; below 1 with the values that the batch has of all of `wanted`.
    """
    model, batch = model.on_path(params), batch.masked()
    path = model.path
    noise = model.noise(fold_name(key, "start"), len(batch))
    grid = times_from(model, start)
    levels = path.level(grid)
    still = {name: whole(model.modalities[name], mask) for name, mask in kept.items() if model.times.tokens}
    task = Task(model, wanted, given, params, weak, batch, model.clean(batch.values), noise, kept, still)
    x, words = task.begun(fold_name(key, "masks"), grid[0], start == 1)

    def move(carry: tuple[Values, Values, Any], times: tuple[Array, ...]) -> tuple[tuple, None]:
        (x, words, memory), (t, s, start, end, i) = carry, times
        predict = functools.partial(task.predict, words, t, t - s)
        step = jax.random.fold_in(fold_name(key, "steps"), i)
        starts, ends = (dict.fromkeys(x, level) for level in (start, end))
        x, memory, logits = model.sampler.step(predict, path, x, starts, ends, memory, step)
        words = {
            name: unmask(fold_name(step, name), word, logits[name], t, s, symbols(model.modalities[name]))
            for name, word in words.items()
        }
        return (x, words, memory), None

    times = (grid[:-1], grid[1:], levels[:-1], levels[1:], jnp.arange(len(grid) - 1))
    (x, words, _), _ = jax.lax.scan(move, (x, words, model.sampler.start(x)), times)
    made = {**x, **words}
    return model.restored({name: made[name] for name in wanted})


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be made, of what: the arguments of `integrate`, the batch as the network is shown it, and noise.

    still: bool [B, T] by names of `kept`: tokens that are shown clean, at t = 0, to a network that has learned that.
    """

    model: Any
    wanted: tuple[str, ...]
    given: frozenset[str]
    params: Params
    weak: Params | None
    batch: Batch
    clean: Values
    noise: Values
    kept: Mapping[str, Array] = FrozenDict()
    still: Mapping[str, Array] = FrozenDict()

    def begun(self, key: Key, t: Array, anew: bool) -> tuple[Values, Values]:
        """Real values, and symbols, at the first time t: nothing but noise and masks, or made of those of the batch."""
        level = self.model.path.level(t)
        first = self.model.path.coefficients(level).sigma  # a grid may begin below t = 1, and EDM has large noise
        x, words = {}, {}
        for name in self.wanted:
            own, count = self.batch.values[name], symbols(self.model.modalities[name])
            if count is None:
                x[name] = first * self.noise[name] if anew else self.on_path(name, level)
            else:
                masked = self.noise[name] if anew else corrupt(fold_name(key, name), own, t, count)
                words[name] = jnp.where(self.kept[name], own, masked) if name in self.kept else masked
        return x, words

    def on_path(self, name: str, level: Array) -> Array:
        """Real values of the batch at a level of the path, always with the same noise."""
        x = self.model.standardised({name: self.batch.values[name]})[name]
        return noised(x, self.noise[name], self.model.path.coefficients(level))

    def held(self, name: str, x: Array, level: Array) -> Array:
        """Real values at a level of the path, with those that are kept in their place on it."""
        return jnp.where(self.kept[name], self.on_path(name, level), x) if name in self.kept else x

    def predict(self, words: Values, t: Array, span: Array, x: Values, levels: Values) -> tuple[Denoised, Values]:
        """What the network says of x at levels of the path, both halves, and of `words` at t, their logits."""
        path = self.model.path
        x = {name: self.held(name, value, levels[name]) for name, value in x.items()}
        shown = {name: path.shown(x[name], levels[name]) for name in x}
        times = {name: path.clock(levels[name]) for name in x} | dict.fromkeys(words, t)
        out = self.outputs({**shown, **words}, times, span)
        halves = {name: path.understood(out[name], x[name], levels[name]) for name in x}
        both = Denoised(*({name: getattr(half, side) for name, half in halves.items()} for side in SIDES))
        return both, {name: out[name] for name in words}

    def outputs(self, state: Values, t: Values, span: Array) -> Values:
        """The guided outputs for the wanted modalities, whose values are `state` at times t (scalars).

        span: how far this step goes.
        """
        guidance, n = self.model.guidance, len(self.batch)
        branches = guidance.branches(self.wanted, self.given) if self.weak is None else (self.everything,)
        views = [self.view(branch, state, t, span) for branch in branches]
        inputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), *views)
        out = self.model.network.apply({"params": self.params}, *inputs)
        out = {name: out[name].reshape(len(branches), n, *out[name].shape[1:]) for name in self.wanted}
        if self.weak is None:
            return {name: guidance.combined(branches, name, out[name], t[name]) for name in self.wanted}
        worse = self.model.network.apply({"params": self.weak}, *inputs)
        return {name: guidance.away_from(worse[name], out[name][0], t[name]) for name in self.wanted}

    @property
    def everything(self) -> Branch:
        """The answer that sees all."""
        return Branch(frozenset(self.wanted), self.given, FrozenDict(dict.fromkeys(self.wanted, 1.0)))

    def view(self, branch: Branch, state: Values, t: Values, span: Array) -> tuple[Values, Values, Values]:
        """What the network sees in a branch: values [B, *shape], times and spans [B], or [B, T], of all modalities."""
        values, times, spans = {}, {}, {}
        for name, there in self.batch.present.items():
            moving = name in branch.made and name in state
            x, time = (state[name], t[name]) if moving else (self.noise[name], 1.0)
            far = span if moving and symbols(self.model.modalities[name]) is None else 0.0
            there = self.still[name] & moving if name in self.still else there & (name in branch.given)
            values[name] = jnp.where(value_times(self.model.modalities[name], there), self.clean[name], x)
            times[name] = jnp.where(there, 0.0, time).astype(jnp.float32)
            spans[name] = jnp.where(there, 0.0, far).astype(jnp.float32)
        return values, times, spans


def times_from(model: Any, start: float) -> Array:
    """The times of a model's steps from `start`, which are as many fewer as that is below 1."""
    grid = model.grid.times(model.path, max(1, round(start * model.steps)))
    return grid if start == 1 else grid * (start / grid[0])


def whole(modality: Modality, mask: Array) -> Array:
    """The tokens that have all their values in a mask, bool [B, T], by the mask, bool [B, *shape]."""
    return jnp.ones((len(mask), len(modality.positions())), bool).at[:, modality.token_of()].min(mask)
