"""How made clips move and hold together, against real ones (`metrics/motion.py` has the equations)."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmgen_jax.evals import metrics
from mmgen_jax.evals.distances import Extractor
from mmgen_jax.evals.features import Classifier, Judge
from mmgen_jax.evals.intervals import mean_interval
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Modality, Model, Variables


@dataclasses.dataclass(frozen=True)
class Clips:
    """Unconditional samples against the test split.

    Returns "consistency/video", of features of single frames, and "motion/video", both with their 95 % interval and
    with "/real", that of test clips; and "motion_gap/video", how far the distribution of motion is from that of test
    clips (`metrics.sliced_power` on a line), with "/floor", that of training clips.

    Attributes:
        label: whose classes judges are trained to tell: a modality of the model, or a label of the experiment.
        limit: the number of samples, and of test and training clips.
        extractor: where features are from, as in `Distances`.
    """

    label: str = "label"
    limit: int = 1000
    extractor: Extractor = Classifier()

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"Clips: limit must be at least 1, not {self.limit}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no modality of clips of two frames or more."""
        if not any(map(moves, model.modalities.values())):
            raise ValueError(f"Clips needs a modality of clips, but the model has {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        names = [name for name, modality in model.modalities.items() if moves(modality)]
        made = generate(model, variables, fold_name(key, "clips"), {}, min(self.limit, len(data.test)))
        values = {"motion/samples": float(len(made[names[0]]))}
        for name in track(names, "clips"):
            judge = self.extractor.fit(name, model.modalities[name], data, self.label)
            test, train = (s.values[name][choose(s, (name,), self.limit)] for s in (data.test, data.train))
            for kind, measure in (("consistency", lambda x, j=judge: consistency(j, x)), ("motion", metrics.motion)):
                found = measure(made[name])
                low, high = mean_interval(found)
                values |= {f"{kind}/{name}": float(found.mean()), f"{kind}/{name}/real": float(measure(test).mean())}
                values |= {f"{kind}/{name}/low": low, f"{kind}/{name}/high": high}
            values[f"motion_gap/{name}"] = gap(made[name], test)
            values[f"motion_gap/{name}/floor"] = gap(train, test)
        return values


def moves(modality: Modality) -> bool:
    """Whether it is one of clips, of two frames or more."""
    return np.issubdtype(modality.dtype, np.floating) and len(modality.shape) == 4 and modality.shape[0] > 1


def consistency(judge: Judge, clips: np.ndarray) -> np.ndarray:
    """Of clips [n, frames, H, W, C], [n]; a judge of clips is shown every frame as a clip of its own."""
    frames = judge.features(clips.reshape(-1, 1, *clips.shape[2:]))
    return metrics.consistency(frames.reshape(*clips.shape[:2], -1))


def gap(x: np.ndarray, y: np.ndarray) -> float:
    """How far the distributions of motion of two sets of clips are apart."""
    first, second = (metrics.motion(clips)[:, None] for clips in (x, y))
    return metrics.sliced_power(first, second, np.ones((1, 1)), 1)
