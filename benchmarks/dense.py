"""A model whose size is a number, for what depends on the number of parameters alone.

    x_{i+1} = relu(x_i W_i),    loss = mean |x_depth - x_0|^2

Nothing in it is random, so that its results on any number of devices can be compared.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mmgen_jax as mm
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Array, Batch, Key, Metrics, Params, Stats, TrainState

DEPTH = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense:
    """DEPTH matrices [width, width]."""

    width: int

    @property
    def modalities(self) -> dict[str, Any]:
        return {"x": mm.Vector(self.width)}

    def init(self, key: Key) -> tuple[Params, Stats]:
        keys, deviation = jax.random.split(key, DEPTH), math.sqrt(2 / self.width)
        return {f"W_{i}": deviation * jax.random.normal(k, (self.width,) * 2) for i, k in enumerate(keys)}, {}

    def loss(self, params: Params, stats: Stats, batch: Batch, key: Key) -> tuple[Array, tuple[Stats, Metrics]]:
        x = batch.values["x"]
        for i in range(DEPTH):
            x = jax.nn.relu(x @ params[f"W_{i}"])
        return jnp.square(x - batch.values["x"]).mean(1), (stats, {})

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        return gradient_step(self.loss, tx, state, batch, key)


def training(width: int, batch_size: int, **fields: Any) -> mm.Experiment:
    """Of `Dense` on no data."""
    more = {"data": mm.data.Arrays({}), "steps": 1000, "steps_per_call": 4} | fields
    return mm.Experiment(model=Dense(width=width), batch_size=batch_size, **more)
