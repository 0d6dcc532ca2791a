"""Checkpoints that can be trusted: the only file that touches Orbax.

Orbax restores a flipped bit without a word. So a manifest with checksums of all arrays is saved with every state, and a
checkpoint that does not agree with its own is passed over for the one before it.
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
import numpy as np
from jax.experimental import multihost_utils

from mmgen_jax.train.manifest import check_layout, manifest
from mmgen_jax.types import TrainState

_log = logging.getLogger(__name__)


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
        if self._best is not None and metrics and self._best.lstrip("-") not in metrics:
            _log.warning("best is %r, but the metrics are %s", self._best, ", ".join(metrics))
        metrics = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        # The manifest guards the arrays, and a checksum of its own guards the manifest.
        guard = {"arrays": arrays, "crc32": zlib.crc32(arrays.encode())}
        # Without `force` Orbax skips whatever its own policy finds unnecessary.
        saving = self._writer.save_async(step, _fields(state), force=True, metrics=metrics, custom_metadata=guard)
        self._pending = step, saving

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The latest state that is whole, or None if nothing was ever saved.

        Args:
            like: the state as `jax.ShapeDtypeStruct`s, whose shardings say where the arrays are put (default: the
                first device), however many devices there were when it was saved. With `opt=None` the optimiser's
                state is not read.
            step: restore the state of this step only.
        Raises:
            ValueError: the checkpoint is of a different model, or there is none of `step`.
            OSError: there are checkpoints but all of them are damaged.
        """
        self.wait()
        if step is not None and step not in self.steps:
            raise ValueError(f"{self.directory} has no checkpoint of step {step}; it has {self.steps}")
        reasons = []
        for candidate in self.steps[::-1] if step is None else [step]:
            state, reason = self._restore_step(candidate, like)
            if reason is None:
                return state
            self._damaged.add(candidate)
            reasons.append(f"step {candidate}: {reason}")
            _log.warning("checkpoint %s is damaged (%s)", self.directory / str(candidate), reason)
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
            check_layout(f"checkpoint {path}", saved, like)
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
    with _quiet():
        try:
            result = read(*args)
        except Exception as error:  # anything may come out of damaged bytes
            reason = f"cannot be read, {type(error).__name__}"
        if reason is not None:
            time.sleep(0.2)  # the threads are still failing
            gc.collect()  # abandoned tasks complain when they are collected: here, not at any time later
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
            yield
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
