"""From noise to samples: all wanted modalities at once, real values and symbols, in one compiled scan over the grid.

At each step from t to s real values move as the sampler says, and each mask becomes a symbol with probability
(t - s) / t, drawn from what the network says is under it. What is given stays clean at t = 0; what is neither given nor
wanted stays noise at t = 1.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.diffusion.guidance import Branch
from mmgen_jax.diffusion.masked import aligned, unmask
from mmgen_jax.diffusion.network import symbols
from mmgen_jax.diffusion.paths import Denoised
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Params

Values = dict[str, Array]
SIDES = ("data", "noise")


@functools.partial(jax.jit, static_argnames=("model", "wanted", "given"))
def integrate(
    model: Any,
    wanted: tuple[str, ...],
    given: frozenset[str],
    params: Params,
    batch: Batch,
    key: Key,
    weak: Params | None = None,
) -> Values:
    """The modalities `wanted` of a `Flow`, [B, *shape] each, given what is present of a batch.

    given: the names that may be present: what guidance can let the network see or not.
    weak: the parameters of a worse network to be guided away from.
    """
    batch, path = batch.masked(), model.path
    noise = model.noise(fold_name(key, "start"), len(batch))
    grid = model.grid.times(path, model.steps)
    levels = path.level(grid)
    task = Task(model, wanted, given, params, weak, batch, model.clean(batch.values), noise)
    words = {name: noise[name] for name in wanted if symbols(model.modalities[name]) is not None}
    first = path.coefficients(levels[0]).sigma  # a grid may begin a little below t = 1, and EDM has large noise
    x = {name: first * noise[name] for name in wanted if name not in words}

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

    times = (grid[:-1], grid[1:], levels[:-1], levels[1:], jnp.arange(model.steps))
    (x, words, _), _ = jax.lax.scan(move, (x, words, model.sampler.start(x)), times)
    made = {**x, **words}
    return model.restored({name: made[name] for name in wanted})


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be made, of what: the arguments of `integrate`, the batch as the network is shown it, and noise."""

    model: Any
    wanted: tuple[str, ...]
    given: frozenset[str]
    params: Params
    weak: Params | None
    batch: Batch
    clean: Values
    noise: Values

    def predict(self, words: Values, t: Array, span: Array, x: Values, levels: Values) -> tuple[Denoised, Values]:
        """What the network says of x at levels of the path, both halves, and of `words` at t, their logits."""
        path = self.model.path
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
        """What the network sees in a branch: values [B, *shape], times [B] and spans [B] of all modalities."""
        values, times, spans = {}, {}, {}
        for name, there in self.batch.present.items():
            moving = name in branch.made and name in state
            x, time = (state[name], t[name]) if moving else (self.noise[name], 1.0)
            far = span if moving and symbols(self.model.modalities[name]) is None else 0.0
            there = there & (name in branch.given)
            values[name] = jnp.where(aligned(there, x), self.clean[name], x)
            times[name] = jnp.where(there, 0.0, time).astype(jnp.float32)
            spans[name] = jnp.where(there, 0.0, far).astype(jnp.float32)
        return values, times, spans
