"""Whether pictures and texts that are made of each other belong together, to CLIP.

    score = mean_i cos(E_picture(x_i), E_text(w_i)),    one of the two given, the other made                      (1)

(Hessel et al. 2021, arXiv:2104.08718, who take 2.5 max(cos, 0); others 100 max(cos, 0).) Numbers of different weights
cannot be compared: the hash of the file stands in the protocol.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmgen_jax.evals.clip import CLIP
from mmgen_jax.evals.distances import Extractor
from mmgen_jax.evals.intervals import mean_interval
from mmgen_jax.evals.metrics.retrieval import unit
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Model, Variables


@dataclasses.dataclass(frozen=True)
class CLIPScore:
    """ "clip_score/text->image" and "clip_score/image->text", with their 95 % intervals.

    Beside each "/real", of the true pairs, and "/chance", of what was made and the next example's condition.

    Attributes:
        extractor: a `CLIP`, or anything whose features of both modalities can be compared by the cosine.
        image, text: what the modalities are called.
        limit: at most so many test examples.
    """

    extractor: CLIP | Extractor
    image: str = "image"
    text: str = "text"
    limit: int = 1000

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"CLIPScore: limit must be at least 1, not {self.limit}")

    def check(self, model: Model) -> None:
        """Raises ValueError if one of the two is no modality of the model."""
        for name in (self.image, self.text):
            if name not in model.modalities:
                raise ValueError(f"CLIPScore: {name!r} is no modality of the model, which has {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`, or if the extractor cannot look at one of the two."""
        self.check(model)
        names = (self.image, self.text)
        judges = {name: self.extractor.fit(name, model.modalities[name], data, "") for name in names}
        rows = choose(data.test, names, self.limit)
        true = {name: data.test.values[name][rows] for name in names}
        embedded = {name: unit(judges[name].features(x)) for name, x in true.items()}
        real, values = float(np.mean(np.sum(embedded[self.image] * embedded[self.text], axis=1))), {}
        for given, target in ((self.text, self.image), (self.image, self.text)):
            made = generate(model, variables, fold_name(key, target), {given: true[given]}, len(rows))
            if target in made:  # a model may not make all of its modalities
                own = unit(judges[target].features(made[target]))
                score, metric = np.sum(own * embedded[given], axis=1), f"clip_score/{given}->{target}"
                low, high = mean_interval(score)
                chance = np.mean(np.sum(own * np.roll(embedded[given], 1, axis=0), axis=1))
                values |= {metric: float(score.mean()), f"{metric}/low": low, f"{metric}/high": high}
                values |= {f"{metric}/real": real, f"{metric}/chance": float(chance)}
        return values
