"""Whether a model's samples are copies of what it was trained on (`metrics/memorisation.py` has the equations)."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmgen_jax.evals import metrics
from mmgen_jax.evals.distances import Extractor
from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Model, Variables


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """Unconditional samples against the training split, in features of every modality made of real values.

    Returns "copying/image": about 0 where samples are as far from the training examples as test examples are, -3 or
    less where they are nearer; "authentic/image", the share that is no near copy; ".../floor", that of test examples.

    Attributes:
        label: whose classes judges are trained to tell: a modality of the model, or a label of the experiment.
        limit: the number of samples, and of test examples; training examples are all looked at.
        extractor: where features are from, as in `Distances`.
    """

    label: str = "label"
    limit: int = 1000
    extractor: Extractor = Classifier()

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"Memorisation: limit must be at least 1, not {self.limit}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        made = generate(model, variables, fold_name(key, "memorisation"), {}, min(self.limit, len(data.test)))
        real = [name for name in made if np.issubdtype(model.modalities[name].dtype, np.floating)]
        values = {}
        for name in track(real, "memorisation"):
            judge = self.extractor.fit(name, model.modalities[name], data, self.label)
            train = judge.features(data.train.values[name][data.train.present[name]])
            test = judge.features(data.test.values[name][choose(data.test, (name,), self.limit)])
            samples = judge.features(made[name])
            values[f"copying/{name}"] = metrics.copying(samples, test, train)
            values[f"authentic/{name}"] = metrics.authentic(samples, train)
            values[f"authentic/{name}/floor"] = metrics.authentic(test, train)
        return values
