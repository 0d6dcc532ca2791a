"""How far a model's samples are from test data, in features of every modality that is made of real values.

    value    metric(features of samples, features of test examples)                                        (1)
    floor    metric(features of as many training examples, the same)       what a perfect model would get  (2)
    low, high: the value's 95 % interval (`intervals.py`)

Metrics are those of `mmgen_jax.evals.metrics`, which has their equations and sources.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from mmgen_jax.evals import metrics
from mmgen_jax.evals.features import Classifier, Judge
from mmgen_jax.evals.intervals import Z, spread_of_halves
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Modality, Model, Variables

METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "frechet": metrics.frechet_distance,
    "kernel": lambda made, real: metrics.kernel_distance(made, real)[0],
    "mind": lambda made, real: metrics.mind(made, real, metrics.directions(1000, made.shape[1], seed=0)),
    "precision": lambda made, real: metrics.precision_recall(made, real)["precision"],
    "recall": lambda made, real: metrics.precision_recall(made, real)["recall"],
    "density": lambda made, real: metrics.density_coverage(made, real)["density"],
    "coverage": lambda made, real: metrics.density_coverage(made, real)["coverage"],
    "vendi": lambda made, _: metrics.vendi_score(made),
}


class Extractor(Protocol):
    """Something that finds features of a modality; a frozen dataclass."""

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Judge: ...


@dataclasses.dataclass(frozen=True)
class Distances:
    """Samples against the test split: "frechet/image", "frechet/image/floor", ".../low", ".../high".

    Where some modalities are given, of as many test examples, it is "frechet/text->image". Modalities of whole numbers
    (texts, labels) have no such features and are left out, unless they are named in `only` with an extractor for them.

    Attributes:
        names: which metrics, of `METRICS`.
        label: whose classes judges are trained to tell: a modality of the model, or a label of the experiment.
        given: what the samples are made of; () for nothing.
        limit: the number of samples, and of test and training examples they are compared with.
        extractor: where features are from: judges trained here (`Classifier`), or networks as they were initialised
            (`RandomFeatures`), which are blind to nothing in particular, one trained on photographs
            (`EfficientNetLite`) or on sentences (`MiniLM`), or one whose weights you have (`CLIP`).
        halves: how many are drawn for the interval; 0: no interval.
        only: the modalities to look at, where an extractor is not for all; (): all that are made of real values.

    Raises:
        ValueError: a name is no metric, or a number is outside its range.
    """

    names: tuple[str, ...] = ("frechet", "kernel", "precision", "recall", "density", "coverage")
    label: str = "label"
    given: tuple[str, ...] = ()
    limit: int = 1000
    extractor: Extractor = Classifier()
    halves: int = 20
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in METRICS]:
            raise ValueError(f"Distances: names has {', '.join(unknown)}, but must be of {', '.join(METRICS)}")
        if self.limit < 2:
            raise ValueError(f"Distances: limit must be at least 2, not {self.limit}")
        if self.halves < 0 or self.halves == 1:
            raise ValueError(f"Distances: halves must be 0 or at least 2, not {self.halves}")

    def check(self, model: Model) -> None:
        """Raises ValueError if one of `given` or `only` is no modality of the model."""
        for field in ("given", "only"):
            if strange := [name for name in getattr(self, field) if name not in model.modalities]:
                raise ValueError(f"Distances: {field} has {strange}, but the modalities are {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        some = choose(data.test, self.given, min(self.limit, len(data.train)))
        parts = {name: data.test.values[name][some] for name in self.given}
        made = generate(model, variables, fold_name(key, "distances"), parts, len(some))
        real = [name for name in made if np.issubdtype(model.modalities[name].dtype, np.floating)]
        wanted = [name for name in self.only or real if name in made and name not in parts]
        values = {}
        for name in track(wanted, "distances"):
            judge = self.extractor.fit(name, model.modalities[name], data, self.label)
            test, train = (
                judge.features(split.values[name][choose(split, (name,), len(some))])
                for split in (data.test, data.train)
            )
            values |= self._of(name, judge.features(made[name]), test, train)
        return values

    def _of(self, name: str, made: np.ndarray, test: np.ndarray, train: np.ndarray) -> dict[str, float]:
        """The values of one modality."""
        values, what = {}, f"{'+'.join(self.given)}->{name}" if self.given else name
        for metric in self.names:
            distance, key = METRICS[metric], f"{metric}/{what}"
            values[key] = value = distance(made, test)
            values[f"{key}/floor"] = distance(train, test)
            if self.halves:
                spread = Z * spread_of_halves(distance, made, test, self.halves, seed=0)
                values |= {f"{key}/low": value - spread, f"{key}/high": value + spread}
        return values
