"""Checkpoints that can be trusted: the only file that touches Orbax.

Orbax restores a flipped bit without a word, so a *manifest* is saved with every state: for each array its name, dtype,
shape and two checksums,

    c_j(x) = sum_i  w_j(i) word_i(x)  mod 2^32,      w_j(i) odd,  j = 1, 2                                    (1)

over the bits of x read as unsigned words. Changing bit b of any one word changes the sum by 2^b times an odd number,
which is never 0 mod 2^32. Integer sums do not depend on their order, so the same number comes out of any number of
devices and processes, without gathering anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import math
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mmgen_jax.types import Array, TrainState

_log = logging.getLogger(__name__)


def checksum(x: Array) -> Array:
    """Equation (1): the two checksums of an array of any shape and dtype of 8 to 64 bits, as uint32[2]."""
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    bits = 8 * min(x.dtype.itemsize, 4)  # a 64-bit number is read as two words along a new last axis
    words = jax.lax.bitcast_convert_type(x, f"uint{bits}").astype(jnp.uint32)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):  # row-major position, without reshaping what may be sharded
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mixed = index * np.uint32(0x9E3779B1)
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(0x85EBCA77)
    return jnp.stack([jnp.sum(words * (weight | 1), dtype=jnp.uint32) for weight in (2 * index, mixed)])


_checksums = jax.jit(lambda leaves: jnp.stack([checksum(x) for x in leaves]))


def manifest(state: TrainState) -> dict[str, list]:
    """`{name: [dtype, shape, c_1, c_2]}` of every array of the state, computed where the arrays are."""
    names = layout(state)
    sums = np.asarray(_checksums(jax.tree.leaves(state))).tolist()
    return {name: [*kind, *pair] for (name, kind), pair in zip(names.items(), sums, strict=True)}


def layout(state: TrainState) -> dict[str, list]:
    """`{name: [dtype, shape]}` of every array, or `jax.ShapeDtypeStruct`, of the state."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): [str(x.dtype), list(x.shape)] for path, x in leaves}


class Checkpoints:
    """The checkpoints of one run, `directory/<step>`: the last `keep`, and the best one where `best` is given.

    Args:
        directory: made by the first save.
        keep: how many of the latest are kept.
        best: name of the metric, handed to `save`, whose largest value marks the best; "-name": the smallest.
    """

    def __init__(self, directory: str | Path, keep: int = 3, best: str | None = None) -> None:
        self.directory = Path(directory).absolute()
        self._keep, self._best = keep, best
        self._writer: Any = None  # opened by the first save, so that reading changes nothing on the disk
        self._pending: tuple[int, Any] | None = None
        self._damaged: set[int] = set()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """The steps with a complete checkpoint; a save in progress, or killed, is not among them."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit() and path.is_dir())

    @property
    def latest(self) -> int | None:
        return max(self.steps, default=None)

    def save(self, step: int, state: TrainState, metrics: Mapping[str, float] = {}) -> None:
        """Start saving; the arrays are copied before this returns, so the caller may donate them at once.

        A step that is already saved is left as it is. Raises OSError if the save before this one has failed.
        """
        self.wait()
        self._set_damaged_aside()
        if step in self.steps:
            return
        self._writer = self._writer or self._open()
        arrays = json.dumps(manifest(state))
        metrics = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        # The manifest guards the arrays, and a checksum of its own guards the manifest.
        guard = {"arrays": arrays, "crc32": zlib.crc32(arrays.encode())}
        # Without `force` Orbax skips whatever its own policy finds unnecessary.
        saving = self._writer.save_async(step, _fields(state), force=True, metrics=metrics, custom_metadata=guard)
        self._pending = step, saving

    def restore(self, like: TrainState) -> TrainState | None:
        """The latest state that is whole, or None if nothing was ever saved.

        Args:
            like: the state as `jax.ShapeDtypeStruct`s, whose shardings say where the arrays are put (default: the
                first device), however many devices there were when it was saved. With `opt=None` the optimiser's
                state is not read.
        Raises:
            ValueError: the checkpoint is of a different model.
            OSError: there are checkpoints but all of them are damaged.
        """
        self.wait()
        reasons = []
        for step in reversed(self.steps):
            state, reason = self._restore_step(step, like)
            if reason is None:
                return state
            self._damaged.add(step)
            reasons.append(f"step {step}: {reason}")
            _log.warning("checkpoint %s is damaged (%s); trying the one before", self.directory / str(step), reason)
        if reasons:
            raise OSError(f"no checkpoint in {self.directory} is whole: {'; '.join(reasons)}")
        return None

    def wait(self) -> None:
        """Return when the last save is on the disk; raises OSError if it failed."""
        if self._pending is None:
            return
        (step, response), self._pending = self._pending, None
        try:
            response.result()
        except Exception as error:  # Orbax lets through whatever its threads raised
            raise OSError(f"could not save the checkpoint of step {step} in {self.directory}: {error}") from error

    def close(self) -> None:
        """Wait for the last save and release Orbax's threads."""
        try:
            self.wait()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                with _quiet(), contextlib.suppress(Exception):  # it raises once more what wait() has raised
                    writer.close()

    def _open(self) -> Any:
        from orbax.checkpoint import v1 as ocp

        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(self._keep)]
        if self._best is not None:
            name, sign = self._best.lstrip("-"), -1 if self._best.startswith("-") else 1
            kept.append(
                policies.BestN(
                    get_metric_fn=lambda metrics: sign * metrics.get(name, -sign * math.inf),
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        return ocp.training.Checkpointer(
            self.directory,
            context=_context(),
            preservation_policy=policies.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True,  # what a killed save has left
        )

    def _restore_step(self, step: int, like: TrainState) -> tuple[TrainState | None, str | None]:
        """The state, or what is wrong with the checkpoint; ValueError if it is sound but of a different model."""
        path = self.directory / str(step)
        saved, reason = _attempt(_read_manifest, path)
        if reason is None:
            _check_layout(path, saved, like)
            state, reason = _attempt(_read_state, path, like)
        if reason is None:
            wrong = [name for name, entry in manifest(state).items() if entry != saved[name]]
            reason = f"wrong checksum of {wrong[0]}" if wrong else None
        return (state, None) if reason is None else (None, reason)

    def _set_damaged_aside(self) -> None:
        """Rename what could not be restored: it must neither stand in the way nor count as one of those kept."""
        if not self._damaged:
            return
        self.close()
        for step in self._damaged if jax.process_index() == 0 else ():
            aside = tempfile.mkdtemp(prefix=f"{step}.damaged-", dir=self.directory)
            (self.directory / str(step)).rename(aside)  # onto an empty folder: allowed
        self._damaged.clear()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints set aside")


def _attempt(read: Callable[..., Any], *args: Any) -> tuple[Any, str | None]:
    """`read(*args)`, or what went wrong; every process learns of the failure of any, so that all go on alike."""
    result, reason = None, None
    try:
        with _quiet():
            result = read(*args)
    except Exception as error:  # anything may come out of damaged bytes
        reason = f"cannot be read, {type(error).__name__}"
    if jax.process_count() > 1 and multihost_utils.process_allgather(np.asarray(reason is not None)).any():
        reason = reason or "another process cannot read it"
    return result, reason


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the thousands of lines that one damaged byte makes Orbax's and TensorStore's threads print."""
    disabled, hook = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda unraisable: None
    try:
        with warnings.catch_warnings(action="ignore"):
            try:
                yield
            except Exception:
                gc.collect()  # abandoned coroutines complain here and now
                time.sleep(0.2)  # and so do the threads, which are still failing
                raise
    finally:
        sys.unraisablehook = hook
        logging.disable(disabled)


def _context() -> Any:
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_compression = False  # 7 % smaller would cost 2 to 4 times the time
    context.pytree.loading.partial_load = True  # names are checked here, against the manifest
    return context


def _fields(state: TrainState) -> dict[str, Any]:
    """What Orbax sees of a state: its fields, without those that are None."""
    return {
        field.name: value for field in dataclasses.fields(state) if (value := getattr(state, field.name)) is not None
    }


def _read_manifest(path: Path) -> dict[str, list]:
    from orbax.checkpoint import v1 as ocp

    guard = ocp.metadata(path).custom_metadata
    if zlib.crc32(guard["arrays"].encode()) != guard["crc32"]:
        raise ValueError("the manifest does not have its checksum")
    return json.loads(guard["arrays"])


def _read_state(path: Path, like: TrainState) -> TrainState:
    from orbax.checkpoint import v1 as ocp

    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first), like)
    with _context():
        return TrainState(**({"opt": None, "ema": None} | ocp.load(path, _fields(like))))


def _check_layout(path: Path, saved: Mapping[str, list], like: TrainState) -> None:
    """Raise ValueError where names, dtypes or shapes differ; Orbax itself would cast dtypes without a word."""
    expected = layout(like)
    found = {name: entry[:2] for name, entry in saved.items() if like.opt is not None or not name.startswith("opt/")}
    for name in sorted(expected.keys() | found.keys()):
        here, there = expected.get(name, "nothing"), found.get(name, "nothing")
        if here != there:
            raise ValueError(f"checkpoint {path} is of a different model: {name} is {there} there and {here} here")
