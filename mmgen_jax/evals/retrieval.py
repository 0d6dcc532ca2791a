"""Whether what a model makes of an example can be told from what it makes of others.

Of each test example one modality is made of another. Among the true ones of all these examples, its own should be the
nearest to it, or among the k nearest (`metrics/retrieval.py`, equation 2), by the features of a judge. That asks for
all that the judge sees, where coherence asks for the class alone: a model that knows only the class finds one of as
many as there are in it.

    chance    k / n, of n examples                                                                                (1)
"""

from __future__ import annotations

import dataclasses

from mmgen_jax.evals import metrics
from mmgen_jax.evals.distances import Extractor
from mmgen_jax.evals.features import Classifier, Judge
from mmgen_jax.evals.intervals import share_interval
from mmgen_jax.evals.sampling import answers
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Model, Variables


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """ "recall@5/image->audio" with its 95 % interval, "/chance" by equation (1) and "/examples", n.

    Attributes:
        ks: the numbers of the nearest; those above n are left out.
        label: whose classes judges are trained to tell: a modality of the model, never retrieved itself, or a label of
            the experiment.
        limit: at most so many test examples; recall falls with their number, so compare the same one.
        extractor: where features are from, as in `Distances`.
        only: the modalities that are retrieved, where an extractor is not for all; (): all.
    """

    ks: tuple[int, ...] = (1, 5)
    label: str = "label"
    limit: int = 1000
    extractor: Extractor = Classifier()
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"Retrieval: ks must be numbers of at least 1, not {self.ks}")
        if self.limit < 1:
            raise ValueError(f"Retrieval: limit must be at least 1, not {self.limit}")

    def check(self, model: Model) -> None:
        """Raises ValueError if one of `only` is no modality of the model."""
        if strange := [name for name in self.only if name not in model.modalities]:
            raise ValueError(f"Retrieval: only has {strange}, but the modalities are {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        targets = [name for name in self.only or model.modalities if name != self.label]
        judges: dict[str, Judge] = {}
        values = {}
        for given, name, made, true in answers(
            model, variables, data.test, fold_name(key, "retrieval"), self.limit, targets
        ):
            if name not in judges:
                judges[name] = self.extractor.fit(name, model.modalities[name], data, self.label)
            a, b = (judges[name].features(x) for x in (made, true))
            for k in (k for k in self.ks if k <= len(a)):
                share, metric = metrics.recall_at(k, a, b), f"recall@{k}/{given}->{name}"
                low, high = share_interval(share, len(a))
                values |= {metric: share, f"{metric}/low": low, f"{metric}/high": high}
                values |= {f"{metric}/chance": k / len(a), f"{metric}/examples": float(len(a))}
        return values
