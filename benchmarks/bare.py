"""The compiled program of the training loop without the loop, on made-up examples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import mmgen_jax as mm
from mmgen_jax.data.loader import order
from mmgen_jax.train.mesh import local_rows, put, put_everywhere, stacked_rows
from mmgen_jax.train.stages import prepared
from mmgen_jax.train.step import make_steps, partitioned, per_device
from mmgen_jax.types import Batch, Metrics, Modality, TrainState

EXAMPLES = 512


def made_up(modalities: Mapping[str, Modality], count: int = EXAMPLES) -> Batch:
    """Examples of any modalities: random real values, symbols that are all 0."""
    rng = np.random.default_rng(0)
    values = {name: rng.random((count, *m.shape)) * (m.dtype.kind == "f") for name, m in modalities.items()}
    values = {name: x.astype(modalities[name].dtype) for name, x in values.items()}
    return Batch(values, {name: np.ones(count, bool) for name in modalities})


@dataclasses.dataclass
class Bare:
    """The program of `experiment` and its arguments: a state, a training set on the devices, rows of it, a count."""

    experiment: mm.Experiment

    def __post_init__(self) -> None:
        e = self.experiment
        self.tx = e.optimizer.make(e.steps)
        self.stacked = stacked_rows(e.mesh.make(jax.devices()), e.batch_size)
        self.create = jax.jit(functools.partial(TrainState.create, e.model, self.tx, ema=e.optimizer.ema > 0))

    def state_shapes(self) -> TrainState:
        """The state before the first step, as shapes that know where they are to be."""
        shapes = jax.eval_shape(self.create, jax.random.key(0))
        where = self.experiment.mesh.shardings(shapes, self.stacked.mesh)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, where)

    def state(self) -> TrainState:
        """The same as arrays."""
        where = jax.tree.map(lambda x: x.sharding, self.state_shapes())
        options = {"xla_backend_optimization_level": 0}  # run once: quick to compile is what counts
        program = jax.jit(self.create, out_shardings=where, compiler_options=options)
        return program(jax.random.key(self.experiment.seed))

    def resident(self, state: TrainState | None = None, split: Batch | None = None) -> Any:
        """Examples on the devices, prepared by the model if it does that, for which `state` is needed."""
        split = made_up(self.experiment.model.modalities) if split is None else split
        if state is not None:
            split = prepared(self.experiment.model, state.stats, split)
        return put_everywhere(split, self.stacked.mesh)

    def rows(self, start: int = 0, copies: int = 1) -> jax.Array:
        """Which examples the steps of one call from step `start` on see, int32 [k, B], each so many times."""
        k, size = self.experiment.steps_per_call, self.experiment.batch_size
        drawn = order(EXAMPLES, self.experiment.seed, start * size // copies, (start + k) * size // copies)
        drawn = drawn.astype(np.int32)
        return put(np.tile(drawn.reshape(k, -1), copies)[:, local_rows(self.stacked, size)], self.stacked, size)

    def program(self, state: TrainState) -> Any:
        """The jitted program, new with every call; of `state` only shapes and places matter."""
        e = self.experiment
        steps = make_steps(e.model, self.tx, seed=e.seed, ema=e.optimizer.ema)
        return (per_device if e.per_device else partitioned)(steps, state, self.stacked)


def run(program: Any, state: TrainState, resident: Any, rows: jax.Array, steps: int) -> tuple[TrainState, Metrics]:
    """So many further steps, as many in a call as `rows` has. They are waited for.

    Raises RuntimeError if a number is not finite: the program ends there, and would look fast.
    """
    end = int(state.step) + steps
    while steps > 0:
        count = min(steps, len(rows))
        state, metrics = program(state, resident, rows, np.int32(count))
        steps -= count
    jax.block_until_ready((state, metrics))
    if int(state.step) != end:
        raise RuntimeError(f"step {int(state.step)} of {end} was the last with finite numbers")
    return state, metrics


def memory(program: Any) -> dict[str, float]:
    """What the compiler says that one device needs for a compiled program, in MiB."""
    said = program.memory_analysis()
    arguments, temporary = said.argument_size_in_bytes, said.temp_size_in_bytes
    peak = arguments + temporary + said.output_size_in_bytes - said.alias_size_in_bytes
    return {f"mib_{name}": x / 2**20 for name, x in dict(arguments=arguments, temporary=temporary, peak=peak).items()}
