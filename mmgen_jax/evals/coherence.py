"""Coherence: whether what is generated is of the same class as what was given (Shi et al. 2019, arXiv:1911.03393).

    given -> target    share of test examples whose generated target is judged to be of the example's class
    joint              share of unconditional samples whose modalities are all judged to be of one class

No value can be trusted beyond the accuracy of its judges on real test examples, which stands beside it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from flax.core import FrozenDict

from mmgen_jax.evals.features import Classifier, labelled
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.evals.words import Words
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Modality, Model, Variables


class Judge(Protocol):
    """Tells the class of examples of one modality."""

    def classes(self, x: np.ndarray) -> np.ndarray: ...  # [N, *shape] -> int [N], -1 for none


@dataclasses.dataclass(frozen=True)
class Coherence:
    """Conditional and joint coherence.

    Returns "coherence/image+text->audio" for each set of given modalities and each other one, their mean
    "coherence/given_2" for each number of given ones, "coherence/joint", the same with each of `priors` as
    "coherence/joint/GaussianMixturePrior", the number of test examples that the shares are of (at least)
    "coherence/examples", and the judges' own accuracy "judge/audio".

    Attributes:
        label: what says the class: a modality of the model, or one of the experiment's labels.
        limit: at most so many test examples, and samples.
        subsets: which sets of modalities are given: "all" but the empty and the full one, or "single" ones.
        priors: fitted to the model's codes of the training split, for joint generation; models without codes that
            a prior could be fitted to cannot have any.
        judges: by modality, where the default is not wanted. That is: for the label its value; for texts the names of
            the classes, if they have any; for all else a network trained on the training split.
    """

    label: str = "label"
    limit: int = 1000
    subsets: Literal["all", "single"] = "all"
    priors: tuple[Any, ...] = ()
    judges: Mapping[str, Words | Classifier] = FrozenDict()

    def __post_init__(self) -> None:
        if self.subsets not in ("all", "single"):
            raise ValueError(f'Coherence: subsets must be "all" or "single", not {self.subsets!r}')
        if self.limit < 1:
            raise ValueError(f"Coherence: limit must be at least 1, not {self.limit}")

    def check(self, model: Model) -> None:
        """Raises ValueError if one of `judges` is no modality of the model, or no prior can be fitted to its codes."""
        if self.priors and not hasattr(model, "fit_prior"):
            raise ValueError(f"Coherence: priors cannot be fitted to the codes of a {type(model).__name__}")
        for name in self.judges:
            if name not in model.modalities:
                raise ValueError(f"Coherence: {name!r} is no modality of the model, which has {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`, or if `label` is not in the data."""
        self.check(model)
        if self.label not in data.test.present:
            raise ValueError(
                f"Coherence: {self.label!r} is no modality of the model and no label of the experiment, "
                f"which have {list(data.test.present)}"
            )
        judges = {name: self._judge(name, model.modalities, data) for name in model.modalities}
        values = {}
        for name, judge in judges.items():
            if name != self.label:
                x, y = labelled(data.test, name, self.label)
                values[f"judge/{name}"] = float(np.mean(judge.classes(x) == y))
        conditional: dict[tuple[tuple[str, ...], str], float] = {}
        for given in track(given_sets(tuple(model.modalities), self.subsets), "coherence"):
            conditional |= self._given(given, judges, model, variables, data, fold_name(key, "+".join(given)))
        values |= {f"coherence/{'+'.join(given)}->{target}": v for (given, target), v in conditional.items()}
        for count in sorted({len(given) for given, _ in conditional}):
            values[f"coherence/given_{count}"] = float(
                np.mean([value for (given, _), value in conditional.items() if len(given) == count])
            )
        if conditional:
            values["coherence/examples"] = float(min(len(self._rows(data, given)) for given, _ in conditional))
        values |= self._joint("coherence/joint", judges, model, variables, fold_name(key, "joint"))
        for prior in self.priors:
            fitted = model.fit_prior(variables, data.train.only(model.modalities), prior, fold_name(key, "fit"))
            name = f"coherence/joint/{type(prior).__name__}"
            values |= self._joint(name, judges, model, variables, fold_name(key, name), fitted)
        return values

    def _judge(self, name: str, modalities: Mapping[str, Modality], data: EvalData) -> Judge:
        if name == self.label:
            return Itself()
        spec = self.judges.get(name) or default_judge(
            modalities[name], modalities.get(self.label), data.test.values[self.label]
        )
        return spec.fit(name, modalities[name], data, self.label)

    def _rows(self, data: EvalData, given: tuple[str, ...]) -> np.ndarray:
        """The test examples that have these modalities and a label."""
        return choose(data.test, (*given, self.label), self.limit)

    def _given(
        self,
        given: tuple[str, ...],
        judges: Mapping[str, Judge],
        model: Model,
        variables: Variables,
        data: EvalData,
        key: Key,
    ) -> dict[tuple[tuple[str, ...], str], float]:
        """The coherence of every modality not in `given`, over the test examples that have those and a label."""
        rows = self._rows(data, given)
        if not len(rows):
            return {}
        parts = {name: data.test.values[name][rows] for name in given}
        made = generate(model, variables, key, parts, len(rows))
        targets = tuple(name for name in judges if name in made and name not in given)
        classes = data.test.values[self.label][rows]
        return {(given, name): float(np.mean(judges[name].classes(made[name]) == classes)) for name in targets}

    def _joint(
        self,
        metric: str,
        judges: Mapping[str, Judge],
        model: Model,
        variables: Variables,
        key: Key,
        prior: Any = None,
    ) -> dict[str, float]:
        made = generate(model, variables, key, {}, self.limit, prior)
        judged = [judge.classes(made[name]) for name, judge in judges.items() if name in made]
        if len(judged) < 2:
            return {}
        classes = np.stack(judged)
        return {metric: float(np.mean((classes == classes[0]).all(0) & (classes[0] >= 0)))}


@dataclasses.dataclass(frozen=True)
class Itself:
    """The judge of labels."""

    def classes(self, x: np.ndarray) -> np.ndarray:
        return x


def default_judge(modality: Modality, label: Modality | None, classes: np.ndarray) -> Words | Classifier:
    """The judge of `modality`, where `classes` are labels that occur; `label` None: they have no names."""
    is_text = np.issubdtype(modality.dtype, np.integer) and len(modality.shape) == 1
    if label is None or not is_text:
        return Classifier()
    names = tuple(label.decode(np.asarray(i, label.dtype)) for i in range(int(classes.max()) + 1))
    return Words(names) if all(isinstance(name, str) for name in names) else Classifier()


def given_sets(names: tuple[str, ...], which: Literal["all", "single"]) -> list[tuple[str, ...]]:
    """The sets of modalities that are given, smallest first."""
    sizes = range(1, len(names)) if which == "all" else [1] if len(names) > 1 else []
    return [given for size in sizes for given in itertools.combinations(names, size)]
