"""Run directories, read back: what sampling and evaluating start from."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import jax
import optax

from mmgen_jax.config import Experiment, from_json, json_tree, load_experiment
from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.types import Model, TrainState, Variables


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
    return loaded, _restored(run, loaded.model, loaded.optimizer.ema > 0, step)


def load_variables(run: str | Path, model: Model) -> Variables:
    """What to sample `model` with, of the latest state of a run that has trained it, on the first device.

    Nothing in the directory is executed, and no class of it built: the model is compared as it stands in config.json.

    Raises:
        ValueError: not a run directory, a run of another model, or nothing saved.
        OSError: all checkpoints are damaged.
    """
    try:
        config = json.loads(_config(run).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{run}: config.json is not readable JSON: {error}") from None
    if config["model"] != json_tree(model):
        raise ValueError(f"{run} has trained another model than {model!r}")
    return _restored(run, model, config["optimizer"]["ema"] > 0).variables


def load_config(run: str | Path, experiment: str | Path | None = None) -> Experiment:
    """The experiment of a run directory; as `load_run`."""
    path = _config(run)
    try:
        return from_json(path.read_text(), None if experiment is None else load_experiment(experiment))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _config(run: str | Path) -> Path:
    path = Path(run) / "config.json"
    if not path.is_file():
        raise ValueError(f"{run} is not a run directory: it has no config.json")
    return path


def _restored(run: str | Path, model: Model, ema: bool, step: int | None = None) -> TrainState:
    """The latest state of a run of `model`, or that of `step`, with `opt` None."""
    create = partial(TrainState.create, model, optax.identity(), ema=ema)
    like = jax.eval_shape(create, jax.random.key(0)).replace(opt=None)
    state = Checkpoints(Path(run) / "checkpoints").restore(like, step)
    if state is None:
        raise ValueError(f"{run} has no checkpoint yet")
    return state
