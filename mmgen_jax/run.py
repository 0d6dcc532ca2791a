"""Run directories, read back: what sampling and evaluating start from."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax

from mmgen_jax.config import Experiment, from_json, load_experiment
from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.types import TrainState


def load_run(
    run: str | Path, experiment: str | Path | None = None, step: int | None = None
) -> tuple[Experiment, TrainState]:
    """The experiment of a run directory and its latest state, on the first device and with `opt` None.

    Nothing in the directory is executed: it may come from anybody.

    Args:
        run: a directory that `fit` has trained in.
        experiment: the experiment file of the run, needed if it has classes of its own; this file is executed.
        step: the state of this step rather than the latest.
    Raises:
        ValueError: not a run directory, nothing (or not `step`) saved, or a configuration that cannot be read.
        OSError: all checkpoints are damaged.
    """
    loaded = load_config(run, experiment)
    tx = loaded.optimizer.make(loaded.steps)
    create = partial(TrainState.create, loaded.model, tx, ema=loaded.optimizer.ema > 0)
    like = jax.eval_shape(create, jax.random.key(0)).replace(opt=None)
    state = Checkpoints(Path(run) / "checkpoints").restore(like, step)
    if state is None:
        raise ValueError(f"{run} has no checkpoint yet")
    return loaded, state


def load_config(run: str | Path, experiment: str | Path | None = None) -> Experiment:
    """The experiment of a run directory; as `load_run`."""
    path = Path(run) / "config.json"
    if not path.is_file():
        raise ValueError(f"{run} is not a run directory: it has no config.json")
    try:
        return from_json(path.read_text(), None if experiment is None else load_experiment(experiment))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
