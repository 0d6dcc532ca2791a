"""The Frechet distance of a model's samples from test data, by modality (`metrics/frechet.py` has the equation)."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.metrics.frechet import frechet_distance
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Model, Variables


@dataclasses.dataclass(frozen=True)
class Frechet:
    """Distance of unconditional samples from the test split, in features of a judge of the modality, by modality.

    Returns "frechet/image", and beside it "frechet/image/floor", the distance of as many training examples: what a
    perfect model would get. Modalities of whole numbers (texts, labels) have no such features and are left out.

    Attributes:
        label: whose classes the judges are trained to tell: a modality of the model, or a label of the experiment.
        limit: the number of samples, and of test and training examples they are compared with.
        judge: how judges are built and trained.
    """

    label: str = "label"
    limit: int = 1000
    judge: Classifier = Classifier()

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        rows = min(self.limit, len(data.test))
        made = generate(model, variables, fold_name(key, "frechet"), {}, rows)
        values = {}
        for name in made:
            if not np.issubdtype(model.modalities[name].dtype, np.floating):
                continue
            judge = self.judge.fit(name, model.modalities[name], data, self.label)
            test, train = (
                judge.features(split.values[name][choose(split, (name,), rows)]) for split in (data.test, data.train)
            )
            values[f"frechet/{name}"] = frechet_distance(judge.features(made[name]), test)
            values[f"frechet/{name}/floor"] = frechet_distance(train, test)
        return values
