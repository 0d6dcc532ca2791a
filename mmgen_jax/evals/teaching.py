"""What a classifier learns from a model's examples alone: the classification accuracy score.

    CAS = accuracy on real test examples of a classifier that was trained on x ~ p(x | y), y of the training split

(Ravuri and Vinyals 2019, arXiv:1905.10887.) It falls with examples that are wrong, and with those that are all alike,
which coherence, the accuracy of a classifier of real examples on made ones, does not see.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from mmgen_jax.evals.features import Classifier, labelled
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Batch, EvalData, Key, Model, Variables


@dataclasses.dataclass(frozen=True)
class Teaching:
    """The score of every modality that is made of real values, "cas/image", and of as many real examples, ".../real".

    Attributes:
        label: the modality of the classes, which the model must be able to be given.
        limit: the number of examples to learn from.
        classifier: what is trained, twice for every modality.
    """

    label: str = "label"
    limit: int = 4000
    classifier: Classifier = Classifier()

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"Teaching: limit must be at least 1, not {self.limit}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the label is no modality of the model."""
        if self.label not in model.modalities:
            raise ValueError(
                f"Teaching: {self.label!r} is no modality of the model, which has {list(model.modalities)}"
            )

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        classes = data.train.values[self.label][choose(data.train, (self.label,), self.limit)]
        made = generate(model, variables, fold_name(key, "teaching"), {self.label: classes}, len(classes))
        values = {}
        for name, x in made.items():
            if np.issubdtype(model.modalities[name].dtype, np.floating):
                there = np.ones(len(classes), bool)
                lessons = Batch({name: x, self.label: classes}, dict.fromkeys((name, self.label), there))
                real = data.train.take(choose(data.train, (name, self.label), self.limit))
                values[f"cas/{name}"] = self._score(model, name, lessons, data.test)
                values[f"cas/{name}/real"] = self._score(model, name, real, data.test)
        return values

    def _score(self, model: Model, name: str, train: Batch, test: Batch) -> float:
        with tempfile.TemporaryDirectory() as folder:  # it serves this once
            data = EvalData(train, test, Path(folder))
            judge = self.classifier.fit(name, model.modalities[name], data, self.label)
        x, classes = labelled(test, name, self.label)
        return float(np.mean(judge.classes(x) == classes))
