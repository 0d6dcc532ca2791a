"""Training on what other models, trained before, make of the examples: what happens once, before the first step.

    a new run       stats <- model.begin(stats, variables of the other runs, some of the training set)
    every start     the training set in memory <- model.prepare(stats, training set), part by part

Models that build on no others (see `types.SecondStage`) begin as they are, and their data stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.config import Experiment
from mmgen_jax.data.loader import gather, order
from mmgen_jax.progress import track
from mmgen_jax.run import load_variables
from mmgen_jax.train.distributed import to_host
from mmgen_jax.types import Batch, Model, Stats, TrainState, Variables

SEEN = 1_000  # examples of the training set that `begin` sees at most
PART = 128  # examples in one call of `prepare`


def first_variables(experiment: Experiment) -> dict[str, Variables]:
    """What the runs `experiment.first` have learned. Raises ValueError or OSError if one of them cannot be read."""
    return {name: load_variables(run, experiment.model.first[name]) for name, run in experiment.first.items()}


def begun(experiment: Experiment, state: TrainState, trained: Mapping[str, Variables]) -> TrainState:
    """A fresh state, with what the model takes over from its `first_variables`, if it has any."""
    if not trained:
        return state
    model, source = experiment.model, experiment.data.source("train")
    # Drawn, rather than the first: splits are often sorted by class.
    some = order(len(source), experiment.seed, 0, min(SEEN, len(source)))
    stats = model.begin(to_host(state.stats), trained, Batch(*gather(source, model.modalities, some)))
    shardings = jax.tree.map(lambda x: x.sharding, state.stats)
    return state.replace(stats=jax.device_put(jax.device_get(stats), shardings))


def prepared(model: Model, stats: Stats, split: Batch) -> Any:
    """A split in memory as `model.prepare` makes it, in numpy; as it is if the model has no such method.

    Every process prepares all of it, by itself.
    """
    if not callable(getattr(model, "prepare", None)):
        return split
    local = jax.tree.map(jnp.asarray, to_host(stats))
    prepare, size = jax.jit(model.prepare), min(PART, len(split))
    # All parts have the same size, the last being filled up with the first rows: compiled once.
    rows = np.arange(-(-len(split) // size) * size).reshape(-1, size) % len(split)
    parts = [jax.device_get(prepare(local, split.take(part))) for part in track(rows, "preparing the training set")]
    return jax.tree.map(lambda *x: np.concatenate(x)[: len(split)], *parts)
