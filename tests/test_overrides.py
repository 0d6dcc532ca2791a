"""Fields set from the command line: typed, at any depth, and told well when wrong."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import pytest

from mmgen_jax.config import Experiment, load_experiment
from mmgen_jax.data import Digits
from mmgen_jax.modalities import Image, Label
from mmgen_jax.overrides import describe, fields, override
from mmgen_jax.types import Modality


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two numbers whose order is checked.

    low, high: the bounds,
        in metres.
    """

    low: int = 1
    high: int = 2

    def __post_init__(self):
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, but must be below high = {self.high}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """A model with fields of every kind.

    Attributes:
      kind: which kind it is.
    """

    modalities: Mapping[str, Modality]
    kind: Literal["big", "small"] | None = "big"
    sizes: tuple[int, ...] = (1, 2)
    names: tuple[str, ...] = ()
    rate: float | None = None
    level: int | str = 0
    dtype: Any = jnp.float32
    anything: Any = 3
    nothing: Any = None
    function: Any = nn.gelu
    pairs: tuple[Pair, ...] = (Pair(), Pair(3, 4))
    by_name: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"a-b": 1.0})
    network: nn.Module = nn.Dense(3)

    def step(self): ...


@pytest.fixture
def experiment():
    return Experiment(model=Toy(modalities={"image": Image(8, 8), "my_label": Label(3)}), data=Digits(), steps=5)


@pytest.mark.parametrize(
    "args, read, value",
    [
        ("--steps 9", lambda e: e.steps, 9),
        ("--steps=9", lambda e: e.steps, 9),
        ("--steps 9 --steps 8", lambda e: e.steps, 8),
        ("--batch-size 4", lambda e: e.batch_size, 4),
        ("--batch_size 4", lambda e: e.batch_size, 4),
        ("--per-device", lambda e: e.per_device, True),
        ("--per-device --steps 3", lambda e: (e.per_device, e.steps), (True, 3)),
        ("--per-device true", lambda e: e.per_device, True),
        ("--per-device=False", lambda e: e.per_device, False),
        ("--workers 2", lambda e: e.workers, 2),
        ("--workers none", lambda e: e.workers, None),
        ("--optimizer.learning-rate 1e-4", lambda e: e.optimizer.learning_rate, 1e-4),
        ("--optimizer.schedule cosine", lambda e: e.optimizer.schedule, "cosine"),
        ("--optimizer.clip 2", lambda e: e.optimizer.clip, 2.0),
        ("--mesh.data -1", lambda e: e.mesh.data, -1),
        ("--data.data-dir /some/where", lambda e: e.data.data_dir, "/some/where"),
        ("--model.modalities.image.channels 1", lambda e: e.model.modalities["image"].channels, 1),
        ("--model.modalities.image.likelihood.scale .5", lambda e: e.model.modalities["image"].likelihood.scale, 0.5),
        ("--model.modalities.my-label.names a,b,c", lambda e: e.model.modalities["my_label"].names, ("a", "b", "c")),
        ("--model.kind SMALL", lambda e: e.model.kind, "small"),
        ("--model.kind none", lambda e: e.model.kind, None),
        ("--model.sizes 3,4,5", lambda e: e.model.sizes, (3, 4, 5)),
        ("--model.sizes (3,)", lambda e: e.model.sizes, (3,)),
        ("--model.sizes ()", lambda e: e.model.sizes, ()),
        ("--model.rate 3", lambda e: e.model.rate, 3.0),
        ("--model.level 3", lambda e: e.model.level, 3),
        ("--model.level high", lambda e: e.model.level, "high"),
        ("--model.dtype bfloat16", lambda e: e.model.dtype, jnp.bfloat16),
        ("--model.anything 4", lambda e: e.model.anything, 4),
        ("--model.pairs.1.high 9", lambda e: e.model.pairs, (Pair(), Pair(3, 9))),
        ("--model.by-name.a-b 2", lambda e: e.model.by_name, {"a-b": 2.0}),
        ("--model.network.features 7", lambda e: e.model.network.features, 7),
        ("--model.pairs.0.low 5 --model.pairs.0.high 6", lambda e: e.model.pairs[0], Pair(5, 6)),
    ],
)
def test_fields_of_every_kind(experiment, args, read, value):
    changed = override(experiment, args.split())
    assert read(changed) == value and type(read(changed)) is type(value)


def test_nothing_else_changes(experiment):
    assert override(experiment, []) == experiment
    changed = override(experiment, ["--model.pairs.1.high", "9"])
    back = dataclasses.replace(changed.model, pairs=experiment.model.pairs)
    assert dataclasses.replace(changed, model=back) == experiment
    assert experiment.model.pairs == (Pair(), Pair(3, 4))


@pytest.mark.parametrize(
    "args, text",
    [
        ("--stpes 9", "there is no field 'stpes' that can be set; did you mean steps?"),
        ("--scale 9", "did you mean model.modalities.image.likelihood.scale?"),
        ("--model.modalities.image.chanels 9", "did you mean model.modalities.image.channels"),
        ("--zzzzz 1", "there is no field 'zzzzz' that can be set; --help lists the fields"),
        ("--mesh 4", "'mesh' cannot be set as a whole; it has the fields mesh.data, mesh.fsdp, mesh.model"),
        ("--model.function relu", "there is no field 'model.function' that can be set"),
        ("--model.nothing 3", "there is no field 'model.nothing' that can be set"),
        ("--steps", "--steps needs a value, a whole number"),
        ("--steps --seed 3", "--steps needs a value, a whole number"),
        ("--steps 1.5", "--steps must be a whole number, not '1.5'"),
        ("--steps=", "--steps must be a whole number, not ''"),
        ("--per-device maybe", "--per_device must be true or false, not 'maybe'"),
        ("--optimizer.schedule up", "--optimizer.schedule must be one of constant, cosine, linear, not 'up'"),
        ("--optimizer.clip hard", "--optimizer.clip must be a number or none, not 'hard'"),
        ("--model.kind mid", "--model.kind must be one of big, small or none, not 'mid'"),
        ("--model.sizes 1,x", "--model.sizes must be a list with commas, each a whole number, not '1,x'"),
        ("--model.dtype floaty", "--model.dtype must be a dtype such as bfloat16, not 'floaty'"),
        ("--model.dtype __doc__", "--model.dtype must be a dtype"),
        ("steps 3", "'steps' is not a flag: fields are set by --NAME VALUE"),
        ("--steps 3 4", "'4' is not a flag"),
        ("--steps 0", "steps must be a whole number of at least 1, not 0"),  # the experiment's own check
        ("--model.pairs.0.low 5", "low is 5, but must be below high = 2"),
    ],
)
def test_mistakes_are_told_in_one_sentence(experiment, args, text):
    with pytest.raises(ValueError) as error:
        override(experiment, args.split())
    assert text in str(error.value) and "\n" not in str(error.value)


def test_help_has_every_field_with_its_value_type_and_documentation(experiment):
    text = describe(experiment)
    for line in (
        "--steps 5  (a whole number)\n        number of optimiser steps.",
        "--optimizer.schedule constant  (one of constant, cosine, linear)",
        "--model.kind big  (one of big, small or none)\n        which kind it is.",
        "--model.dtype float32  (a dtype such as bfloat16)",
        "--model.pairs.0.low 1  (a whole number)\n        the bounds, in metres.",
        "--model.pairs.1.high 4  (a whole number)\n        the bounds, in metres.",
        "--workers None  (a whole number or none)\n        None decodes the split once",
    ):
        assert line in text
    assert all(field.doc for field in fields(experiment) if "." not in field.name)


OWN = """
from __future__ import annotations
import dataclasses
from mmgen_jax.config import Experiment
from mmgen_jax.data import Digits
from mmgen_jax.types import Modality

@dataclasses.dataclass(frozen=True)
class Own:
    size: int = 3
    modality: Modality | None = None

    def step(self): ...

experiment = Experiment(model=Own(), data=Digits(), steps=1)
"""


def test_a_class_of_an_experiment_file(tmp_path):
    """Its annotations are text that nothing can resolve any more: the present values say what is allowed."""
    (tmp_path / "own.py").write_text(OWN)
    experiment = load_experiment(tmp_path / "own.py")
    assert override(experiment, ["--model.size", "4"]).model.size == 4
    with pytest.raises(ValueError, match="--model.size must be a whole number, not 'x'"):
        override(experiment, ["--model.size", "x"])
