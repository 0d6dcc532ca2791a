"""A model and a data set as small as they can be, and a signal, for the tests of the training loop."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities.vector import Vector
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Batch

MODALITIES = {"x": Vector(8), "y": Vector(4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """y from x, with noise on x; where y is missing the loss is 0. `stats` counts the examples that had a y."""

    width: int = 16
    noise: float = 0.1
    breaks_at: int = -1  # the step whose loss is NaN

    @property
    def modalities(self):
        return MODALITIES

    def init(self, key):
        a, b = jax.random.split(key)
        dense = {"kernel": jax.random.normal(a, (8, self.width)) / 3, "bias": jnp.zeros(self.width)}
        return {"dense": dense, "out": {"kernel": jax.random.normal(b, (self.width, 4)) / 4}}, {"seen": jnp.zeros(())}

    def loss(self, params, stats, batch, key):
        x = batch.values["x"] + self.noise * jax.random.normal(key, batch.values["x"].shape)
        hidden = jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"][None])
        error = jnp.sum(jnp.square(hidden @ params["out"]["kernel"] - batch.values["y"]), axis=-1)
        there = batch.present["y"].astype(jnp.float32)
        return there * error, ({"seen": stats["seen"] + jnp.mean(there)}, {"error": error})

    def step(self, tx, state, batch, key):
        def loss(*args):
            per_example, aux = self.loss(*args)
            return jnp.where(state.step == self.breaks_at, jnp.nan, per_example), aux

        return gradient_step(loss, tx, state, batch, key)


@dataclasses.dataclass(frozen=True)
class Points:
    """n examples of a fixed map from x to y; every third has no y."""

    n: int = 96

    def source(self, split):
        rng = np.random.default_rng(0 if split == "train" else 1)
        x = rng.normal(size=(self.n, 8)).astype(np.float32)
        y = np.tanh(x[:, :4] - x[:, 4:])
        return [{"x": x[i], "y": None if i % 3 == 2 else y[i]} for i in range(self.n)]


def split_in_memory(n=96):
    """What the loader makes of `Points(n).source("train")`."""
    examples, empty = Points(n).source("train"), np.zeros(4, np.float32)
    present = {name: np.array([e[name] is not None for e in examples]) for name in "xy"}
    values = {name: np.stack([empty if e[name] is None else e[name] for e in examples]) for name in "xy"}
    return Batch(values, present)


@dataclasses.dataclass(frozen=True)
class Sends:
    """An evaluator that sends its own process a signal, as a cluster would, the first time it runs."""

    number: int = signal.SIGTERM

    def __call__(self, model, variables, data, key):
        sent = data.cache.with_name("sent")
        if not sent.exists():
            sent.touch()
            os.kill(os.getpid(), self.number)
        return {}
