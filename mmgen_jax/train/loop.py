"""The training loop. It knows no family: it compiles `model.step`, feeds it, saves, resumes, logs and evaluates.

    indices or batches -> [one compiled call: up to k steps] -> metrics, read one call late
                                        every eval_every steps: evaluation;  every save_every steps: checkpoint

Batches and keys are functions of the seed and the step, so a run is resumed exactly by loading its state.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from mmgen_jax.config import Experiment, claim
from mmgen_jax.data.loader import load
from mmgen_jax.rng import step_key
from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.train.distributed import Interrupted, StopRequest, fall_together, to_host
from mmgen_jax.train.feed import feeds, is_due, prefetch
from mmgen_jax.train.log import Log
from mmgen_jax.train.mesh import put_everywhere, stacked_rows
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.train.record import write_evaluation
from mmgen_jax.train.stages import begun, first_variables, prepared
from mmgen_jax.train.step import Steps, make_steps, partitioned, per_device
from mmgen_jax.types import Batch, EvalData, Metrics, Modality, Source, Stats, TrainState, Variables

# Evaluators see at most this many training examples of a set that is streamed, as it may not fit in memory.
EVALUATED_OF_STREAM = 10_000


def fit(experiment: Experiment, workdir: str | Path) -> TrainState:
    """Train until `experiment.steps`, from the checkpoint in `workdir` if there is one; return the final state.

    In `workdir`: config.json, checkpoints/, metrics.jsonl, tensorboard/, evaluation.json, judges/.

    Raises:
        ValueError: these devices do not suit the experiment, `workdir` is of another one, or a run of
            `experiment.first` cannot be read: nothing is written then.
        OSError: all checkpoints in `workdir`, or in a run of `experiment.first`, are damaged.
        Interrupted: SIGTERM or Ctrl-C; the state is saved and the same call goes on from there.
        FloatingPointError: a metric is not finite; the message has the step. That state is not saved.
    """
    mesh = experiment.mesh.make(jax.devices())
    stacked = stacked_rows(mesh, experiment.batch_size)
    tx = experiment.optimizer.make(experiment.steps)
    if experiment.per_device and (mesh.shape["fsdp"] > 1 or mesh.shape["model"] > 1):
        raise ValueError("per_device keeps the whole state on every device, so mesh.fsdp and mesh.model must be 1")
    workdir = Path(workdir).absolute()
    checkpoints = Checkpoints(workdir / "checkpoints", experiment.keep, experiment.best)
    trained = {} if checkpoints.steps else first_variables(experiment)
    claim(workdir, experiment)
    keep_compiled_programs()
    with fall_together(Interrupted, FloatingPointError), checkpoints:
        state = restore_or_create(experiment, tx, stacked.mesh, checkpoints, trained)
        if int(state.step) < experiment.steps:
            state = train(experiment, tx, state, stacked, workdir, checkpoints)
    return state


def restore_or_create(
    experiment: Experiment,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    trained: Mapping[str, Variables],
) -> TrainState:
    """The state to start from. Shapes first: arrays are made, or read, on the devices where they will stay.

    trained: what a fresh state is begun with.
    """
    # Jitted inside as well: traced once for the shapes and the program.
    create = jax.jit(partial(TrainState.create, experiment.model, tx, ema=experiment.optimizer.ema > 0))
    key = step_key(experiment.seed, "init", 0)
    shapes = jax.eval_shape(create, key)
    shardings = experiment.mesh.shardings(shapes, mesh)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    restored = checkpoints.restore(like)
    if restored is not None:
        return restored
    # Run once and made of many small programs for random numbers: quick to compile is what counts.
    program = jax.jit(create, out_shardings=shardings, compiler_options={"xla_backend_optimization_level": 0})
    return begun(experiment, program(key), trained)


def train(
    experiment: Experiment,
    tx: optax.GradientTransformation,
    state: TrainState,
    stacked: NamedSharding,
    workdir: Path,
    checkpoints: Checkpoints,
) -> TrainState:
    """From `state` to the last step. `stacked` is the sharding of what a call is fed, `[k, B, ...]`."""
    start, source = int(state.step), experiment.data.source("train")
    resident, evaluation = load_data(experiment, state.stats, source, stacked.mesh, workdir)
    program = compile_calls(experiment, tx, state, resident, stacked)
    feed = prefetch(feeds(experiment, source, start, stacked))
    late: Metrics = {}
    done: float | None = None
    with Log(workdir, start, experiment.steps, experiment.batch_size) as log, StopRequest() as stop, closing(feed):
        for call, (step, count, inputs) in enumerate(feed):
            state, metrics = program(state, resident, inputs, count)
            report(experiment, log, late, done)  # of the call before, while the devices work at this one
            late, done = metrics, end_of_call(metrics)
            last, asked = step == experiment.steps, stop.asked(call)  # who asks does not wait for an evaluation
            evaluating = last or (is_due(step, experiment.eval_every) and not asked)
            saving = last or asked or is_due(step, experiment.save_every)
            if saving or evaluating:
                # Nothing is saved or evaluated before the metrics that led to it are known to be finite.
                report(experiment, log, late, done)
                late = {}
                keep(experiment, state, step, log, evaluation if evaluating else None, checkpoints if saving else None)
                log.restart_clock(step)
            if asked:
                break
        checkpoints.wait()  # while signals are still held back
    if step < experiment.steps:
        raise Interrupted(step)
    return state


def keep(
    experiment: Experiment,
    state: TrainState,
    step: int,
    log: Log,
    evaluation: EvalData | None,
    checkpoints: Checkpoints | None,
) -> None:
    """Measure the state after `step` steps, if there is something to measure on, and save it, if there is a place."""
    values: dict[str, float] = {}
    try:
        if evaluation:
            values = evaluate(experiment, state.variables, step, evaluation)
            log.row(step, values)
            if log.active:
                write_evaluation(log.workdir, step, values, experiment)
    finally:  # what is trained is saved even if an evaluator fails
        if checkpoints:
            checkpoints.save(step, state, values)


def load_data(
    experiment: Experiment, stats: Stats, source: Source, mesh: jax.sharding.Mesh, workdir: Path
) -> tuple[Batch | None, EvalData | None]:
    """(the training set on the devices unless it is streamed, what evaluators see if there are any)."""
    model = experiment.model
    train_set = load(source, model.modalities) if experiment.workers is None else None
    evaluation = evaluation_data(experiment, source, train_set, workdir)
    resident = None if train_set is None else put_everywhere(prepared(model, stats, train_set), mesh)
    return resident, evaluation


def compile_calls(
    experiment: Experiment,
    tx: optax.GradientTransformation,
    state: TrainState,
    resident: Batch | None,
    stacked: NamedSharding,
) -> Steps:
    """The one program of the run. Compiled ahead, it refuses other shapes instead of compiling a second time."""
    k, size = experiment.steps_per_call, experiment.batch_size

    def stack(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((k, size, *shape), dtype, sharding=stacked)

    inputs: Any = stack((), np.int32)
    if resident is None:
        parts = experiment.model.modalities
        values = {name: stack(modality.shape, modality.dtype) for name, modality in parts.items()}
        inputs = Batch(values, {name: stack((), np.bool_) for name in parts})
    steps = make_steps(experiment.model, tx, seed=experiment.seed, ema=experiment.optimizer.ema)
    place = per_device if experiment.per_device else partitioned
    return place(steps, state, stacked).lower(state, resident, inputs, np.int32(k)).compile()


def end_of_call(metrics: Metrics) -> float | None:
    """When the call was done, on CPU, where going on while it works gains nothing; else None: reading will tell."""
    if jax.default_backend() != "cpu":
        return None
    jax.block_until_ready(metrics)
    return time.perf_counter()


def report(experiment: Experiment, log: Log, metrics: Metrics, at: float | None) -> None:
    """Log the metrics of a call that was done `at` that time (None: now), if due; FloatingPointError if not finite."""
    if not metrics:
        return
    values = {name: x.item() for name, x in jax.device_get(dict(metrics)).items()}
    step = values.pop("step")
    if bad := {name: value for name, value in values.items() if not math.isfinite(value)}:
        what = ", ".join(f"{name} is {value}" for name, value in bad.items())
        raise FloatingPointError(f"{what} at step {step}; training stopped, the last checkpoint is from before that")
    if is_due(step, experiment.log_every) or step == experiment.steps:
        rate = learning_rate(experiment.optimizer, experiment.steps)(step - 1)
        log.train_row(step, {**values, "learning_rate": float(rate)}, at)


@cache
def learning_rate(optimizer: Optimizer, steps: int) -> optax.Schedule:
    """Its rate as one program: the schedule by itself would be compiled as twenty small ones when a run starts."""
    return jax.jit(optimizer.rate(steps))


def evaluation_data(experiment: Experiment, source: Source, train_set: Batch | None, workdir: Path) -> EvalData | None:
    """What the evaluators see, loaded before training so that a missing split is noticed then; None without any."""
    if not experiment.evaluators:
        return None
    modalities = experiment.model.modalities
    if train_set is None:
        train_set = load(source, modalities, limit=EVALUATED_OF_STREAM)
    test = experiment.data.source("test")
    train_set = with_labels(train_set, source, experiment.labels)
    test_set = with_labels(load(test, modalities), test, experiment.labels)
    # Each process evaluates by itself and keeps its own judges, so that none reads what another is writing.
    return EvalData(train_set, test_set, workdir / f"judges{jax.process_index() or ''}")


def with_labels(split: Batch, source: Source, labels: Mapping[str, Modality]) -> Batch:
    """The first examples of `source`, a split in memory, with `labels` beside the modalities that it has."""
    if not labels:
        return split
    more = load(source, labels, limit=len(split))
    return Batch(split.values | more.values, split.present | more.present)


def evaluate(experiment: Experiment, variables: Variables, step: int, data: EvalData) -> dict[str, float]:
    """The values of all evaluators, each measuring the model as it is after `step` steps with the same key."""
    local = jax.tree.map(jnp.asarray, to_host(variables))  # evaluators need not know of meshes
    key = step_key(experiment.seed, "evaluate", step)
    values: dict[str, float] = {}
    for evaluator in experiment.evaluators:
        values |= evaluator(experiment.model, local, data, key)
    return values


def keep_compiled_programs() -> None:
    """Keep compiled programs in the user's cache folder, so that a second start is quick, unless JAX was told where."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "mmgen_jax" / "compiled"))
