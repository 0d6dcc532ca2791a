"""Experiments: what a run is, as one value; written to JSON and read back without executing anything.

An experiment is a tree of frozen dataclasses, so its JSON is that tree, each node under the name of its class:

    {"class": "mmgen_jax.config.Experiment", "steps": 2000, "model": {"class": "mmgen_jax.vae.model.VAE", ...}, ...}

Reading builds dataclasses and enums defined in this package and nothing else. A class of the user's own is written in
the same way, so that runs can be compared, but only its experiment file can bring it back.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import runpy
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from mmgen_jax.train.mesh import Mesh
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.types import Data, Evaluator, Modality, Model

_PACKAGE = __name__.partition(".")[0]
# How a run is executed, rather than what it computes: may change when a run is continued.
_EXECUTION = {"mesh", "per_device", "steps_per_call", "workers", "log_every", "eval_every", "save_every", "keep"}
_EXECUTION |= {"evaluators", "labels", "best"}  # and what is measured on the way
_EXECUTION |= {"first"}  # and what a run needs no more once it has begun


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run.

    Attributes:
        model: what is trained.
        data: what it is trained and evaluated on.
        steps: number of optimiser steps.
        batch_size: examples in a batch, over all devices.
        seed: every random number of the run follows from it.
        optimizer: the optimiser with its schedule.
        mesh: how the devices are arranged.
        per_device: run the step in `jax.shard_map`, each device on its own, rather than partitioned by `jax.jit`.
        steps_per_call: steps compiled into one call, in one loop.
        workers: None decodes the split once and keeps it on the devices; n streams it by Grain with n processes.
        log_every: steps between two lines of metrics.
        eval_every: steps between two evaluations; 0 evaluates at the end only.
        save_every: steps between two checkpoints.
        keep: how many of the last checkpoints are kept.
        evaluators: what is measured.
        labels: what evaluators see of each example besides the model's modalities, such as {"label": Label(10)}.
        best: the metric whose best checkpoint is kept as well, the largest being the best; "-name": the smallest.
        first: run directories of the models that this one builds on, by their names in `model.first` (see
            `types.SecondStage`). They are read when training begins, and never again.
    """

    model: Model
    data: Data
    steps: int
    batch_size: int = 128
    seed: int = 0
    optimizer: Optimizer = Optimizer()
    mesh: Mesh = Mesh()
    per_device: bool = False
    steps_per_call: int = 10
    workers: int | None = None
    log_every: int = 50
    eval_every: int = 0
    save_every: int = 500
    keep: int = 3
    evaluators: tuple[Evaluator, ...] = ()
    labels: Mapping[str, Modality] = FrozenDict()
    best: str | None = None
    first: Mapping[str, str] = FrozenDict()

    def __post_init__(self) -> None:
        least = dict(steps=1, batch_size=1, steps_per_call=1, log_every=1, save_every=1, keep=1)
        least |= dict(seed=0, eval_every=0) | ({} if self.workers is None else {"workers": 0})
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")
        for name, capability in {"model": "step", "data": "source"}.items():
            if not callable(getattr(getattr(self, name), capability, None)):
                raise ValueError(f"{name} must have a method {capability}(), which {getattr(self, name)!r} has not")
        if not isinstance(self.evaluators, tuple) or not all(callable(e) for e in self.evaluators):
            raise ValueError(f"evaluators must be a tuple of evaluators, not {self.evaluators!r}")
        for evaluator in self.evaluators:
            if callable(check := getattr(evaluator, "check", None)):
                check(self.model)
        for name in ("labels", "first"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))
        if both := [name for name in self.labels if name in self.model.modalities]:
            raise ValueError(f"labels name {both}, which the model has as modalities")
        if self.best is not None and not self.evaluators:
            raise ValueError(f"best is {self.best!r}, but there are no evaluators to measure it")
        if self.first.keys() != (needed := getattr(self.model, "first", {}).keys()):
            raise ValueError(f"first names runs for {list(self.first)}, but the model builds on {list(needed)}")


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON text. Raises ValueError for a mapping whose keys are not strings."""
    return json.dumps(json_tree(experiment), indent=2) + "\n"


def from_json(text: str, known: Experiment | None = None) -> Experiment:
    """The experiment that `to_json` has written.

    Args:
        known: the experiment of the same file; classes that are not this package's are taken from the same place in it.
    Raises:
        ValueError: not JSON, not an experiment, a field that does not exist, or a class that is not this package's.
    """
    try:
        experiment = _decode(json.loads(text), known)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the configuration is not readable JSON: {error}") from None
    if not isinstance(experiment, Experiment):
        raise ValueError(f"the configuration holds a {type(experiment).__name__}, not an Experiment")
    return experiment


def json_tree(value: Any) -> Any:
    """An experiment, or a part of one, as it stands in JSON. Raises ValueError as `to_json`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [json_tree(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value) or isinstance(value.get("class"), str):
            raise ValueError(f"a mapping with the keys {list(value)} cannot be written to a configuration")
        return {key: json_tree(item) for key, item in value.items()}
    if isinstance(value, np.dtype | type(jnp.float32)):
        return {"class": "dtype", "name": jnp.dtype(value).name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": _name(value)} | {name: json_tree(getattr(value, name)) for name in field_names(value)}
    return {"class": _name(value)}  # a function, an array: by its name only


def _decode(tree: Any, known: Any) -> Any:
    """What the JSON `tree` says; `known` is what stands in its place in a trusted experiment, or None."""
    if isinstance(tree, list):
        twins = known if isinstance(known, tuple | list) and len(known) == len(tree) else [None] * len(tree)
        return tuple(_decode(item, twin) for item, twin in zip(tree, twins, strict=True))
    if not isinstance(tree, dict):
        return tree
    if not isinstance(tree.get("class"), str):
        twins = known if isinstance(known, Mapping) else {}
        return {key: _decode(item, twins.get(key)) for key, item in tree.items()}
    if tree["class"] == "dtype":
        return _dtype(tree.get("name"))
    own = known is not None and _name(known) == tree["class"]
    if own and not dataclasses.is_dataclass(known):
        return known
    cls = type(known) if own else _resolve(tree["class"])
    fields = {key: _decode(item, getattr(known, key, None)) for key, item in tree.items() if key != "class"}
    if unknown := sorted(fields.keys() - set(field_names(cls))):
        raise ValueError(f"{_name(cls)} has no field {unknown[0]!r}; it has {', '.join(field_names(cls))}")
    try:
        return cls(**fields)
    except TypeError as error:  # a required field is missing, or a value is of the wrong type
        raise ValueError(f"{_name(cls)} cannot be built: {error}") from None


def _dtype(name: Any) -> Any:
    dtype = getattr(jnp, str(name), None)
    if not isinstance(dtype, type(jnp.float32)):
        raise ValueError(f"the configuration names the dtype {name!r}, which does not exist")
    return dtype


def _resolve(name: str) -> type:
    """The dataclass of this package called `name`. Nothing else is ever looked up, let alone called."""
    module, _, qualname = name.rpartition(".")
    if module.partition(".")[0] != _PACKAGE:
        raise ValueError(
            f"this run uses {qualname} of {module or 'an unknown module'}, which only its experiment file can bring "
            "back: pass that file with --experiment"
        )
    try:
        cls = getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError):
        raise ValueError(f"the configuration names {name}, which does not exist in this version") from None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module):
        raise ValueError(f"the configuration names {name}, which is not a dataclass of {_PACKAGE}")
    return cls


def _name(value: Any) -> str:
    """The full name of a class or function, or of the class of any other value."""
    named = value if hasattr(value, "__qualname__") else type(value)
    module = named.__module__
    if module == "__main__":  # the same name whether python or the command line runs the file
        module = Path(getattr(sys.modules["__main__"], "__file__", "__main__")).name
    return f"{module}.{named.__qualname__}"


def field_names(node: Any) -> list[str]:
    """The fields of a dataclass or its instance that make it what it is: those its constructor takes."""
    linen = {"parent", "name"} if issubclass(node if isinstance(node, type) else type(node), nn.Module) else set()
    return [field.name for field in dataclasses.fields(node) if field.init and field.name not in linen]


def load_experiment(path: str | Path) -> Experiment:
    """Run an experiment file, plain Python, and return the `experiment` it defines.

    Raises:
        ValueError: there is no such file, it is not Python, or it defines no `experiment`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no experiment file {path}")
    sys.path.insert(0, str(path.parent.absolute()))  # as `python FILE` does: its neighbours can be imported
    try:
        experiment = runpy.run_path(str(path), run_name=path.name).get("experiment")
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{path} must define `experiment`, an mmgen_jax.Experiment; there it is {experiment!r}")
    return experiment


def claim(workdir: str | Path, experiment: Experiment) -> Path:
    """Make `workdir` the run directory of `experiment`, or see that it is; nothing is written before all is checked.

    Writes `config.json`, and adds a line to `starts.jsonl`: when, by which command, with which versions and devices.

    Raises:
        ValueError: it is a file, holds another experiment or something else than a run, or cannot be written to.
    """
    workdir, text = Path(workdir), to_json(experiment)
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"the run directory {workdir} is a file")
    # Listed first: another process of this run may be writing config.json, and then the rest, at this moment.
    occupied = workdir.exists() and any(not path.name.startswith(".") for path in workdir.iterdir())
    if (workdir / "config.json").exists():
        _check_same(workdir, (workdir / "config.json").read_text(), text)
    elif occupied:
        raise ValueError(f"{workdir} is not empty and not a run directory (it has no config.json)")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            write_text(workdir / "config.json", text)
            with open(workdir / "starts.jsonl", "a") as file:
                file.write(json.dumps(_start()) + "\n")
    except OSError as error:
        raise ValueError(f"the run directory {workdir} cannot be written to: {error.strerror}") from None
    return workdir


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, whatever interrupts."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_same(workdir: Path, there: str, here: str) -> None:
    try:
        before, now = (dict(_leaves(json.loads(text))) for text in (_with_new_fields(there), here))
    except json.JSONDecodeError as error:
        raise ValueError(f"{workdir / 'config.json'} is not readable JSON: {error}") from None
    names = [name for name in before | now if name.partition(".")[0] not in _EXECUTION]
    changed = [name for name in names if before.get(name) != now.get(name)]
    if changed:
        parts = [f"{name} is {before.get(name)!r} there and {now.get(name)!r} here" for name in changed[:3]]
        more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(f"{workdir} holds another experiment: {'; '.join(parts)}{more}; choose another --workdir")


def _with_new_fields(text: str) -> str:
    """The same experiment with the fields that did not exist when it was written, at their defaults."""
    try:
        return to_json(from_json(text))
    except ValueError:  # it has classes of the user's, or is not readable: compared as it stands
        return text


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in a JSON tree; an empty container counts as a value."""
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ())
    if not items:
        yield name, tree
    for key, item in items:
        yield from _leaves(item, f"{name}.{key}" if name else str(key))


def _start() -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__},
        "devices": [jax.device_count(), jax.devices()[0].device_kind],
        "processes": jax.process_count(),
    }
