"""Which modes of the data a generator covers: the protocol of Stacked MNIST (`data.StackedDigits`).

The class of a picture is the number that its channels spell, one digit each, and every channel is judged by the same
judge of digits. Pictures of all classes should come equally often (`metrics/modes.py` has the equations). A judge that
errs moves examples from class to class, so it counts modes where there are none: the same numbers of real test pictures
stand beside those of made ones.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmgen_jax.evals import metrics
from mmgen_jax.evals.distances import Extractor
from mmgen_jax.evals.features import Classifier, Judge
from mmgen_jax.evals.intervals import Z
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Batch, EvalData, Key, Modality, Model, Variables


@dataclasses.dataclass(frozen=True)
class Modes:
    """Number of modes of unconditional samples, and the divergence of their histogram from uniform.

    Returns, for the modality "image", "modes/image" and "kl/image", the latter with its 95 % interval "/low", "/high"
    and with "/floor", what a perfect model would get; both with "/real", what real test pictures get, as many as there
    are up to `samples`; "modes/image/samples"; and "judge/image", the share of these pictures whose class is judged
    right, that is in every channel.

    Attributes:
        name: of the modality, real values [*space, C].
        label: of the experiment, 0 to digits^C - 1, the first channel being the highest digit.
        digits: classes of a channel.
        samples: how many are made; published numbers are of 26,000.
        judge: of single channels [*space, 1], trained on the channels of up to `samples` training examples.
    """

    name: str = "image"
    label: str = "label"
    digits: int = 10
    samples: int = 26_000
    judge: Extractor = Classifier()

    def __post_init__(self) -> None:
        for field, least in (("digits", 2), ("samples", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"Modes: {field} must be at least {least}, not {getattr(self, field)}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no such modality."""
        if self.name not in model.modalities:
            raise ValueError(f"Modes: {self.name!r} is no modality of the model, which has {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`, or if the data has no such label."""
        self.check(model)
        if self.label not in data.test.present:
            raise ValueError(f"Modes: {self.label!r} is not in the data, which has {list(data.test.present)}")
        train, test = (
            split.take(choose(split, (self.name, self.label), self.samples)) for split in (data.train, data.test)
        )
        single = EvalData(self._taken_apart(train), self._taken_apart(test), data.cache)
        judge = self.judge.fit(self.name, _channel(model.modalities[self.name]), single, self.label)
        made = generate(model, variables, fold_name(key, "modes"), {}, self.samples)[self.name]
        judged, classes = (self._classes(judge, x) for x in (test.values[self.name], made))
        modes = self.digits ** made.shape[-1]
        real, counts = (np.bincount(c, minlength=modes) for c in (judged, classes))
        divergence, spread = metrics.modes_divergence(counts), Z * metrics.modes_deviation(counts)
        return {
            f"modes/{self.name}": float(metrics.modes_covered(counts)),
            f"modes/{self.name}/real": float(metrics.modes_covered(real)),
            f"modes/{self.name}/samples": float(self.samples),
            f"kl/{self.name}": divergence,
            f"kl/{self.name}/low": divergence - spread,
            f"kl/{self.name}/high": divergence + spread,
            f"kl/{self.name}/floor": metrics.modes_floor(modes, self.samples),
            f"kl/{self.name}/real": metrics.modes_divergence(real),
            f"judge/{self.name}": float(np.mean(judged == test.values[self.label])),
        }

    def _powers(self, channels: int) -> np.ndarray:
        """What the digit of each channel counts for."""
        return self.digits ** np.arange(channels)[::-1]

    def _taken_apart(self, split: Batch) -> Batch:
        """Every channel as an example of its own, its label being its digit."""
        x, y = split.values[self.name], split.values[self.label]
        digits = y[:, None] // self._powers(x.shape[-1]) % self.digits
        there = np.ones(digits.size, bool)
        return Batch(
            {self.name: channels(x), self.label: digits.reshape(-1).astype(np.int32)},
            {self.name: there, self.label: there},
        )

    def _classes(self, judge: Judge, x: np.ndarray) -> np.ndarray:
        """The class of each picture [N, *space, C], int [N]."""
        return judge.classes(channels(x)).reshape(len(x), -1) @ self._powers(x.shape[-1])


def channels(x: np.ndarray) -> np.ndarray:
    """Pictures [N, *space, C] -> [N C, *space, 1], the channels of one picture after another."""
    return np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:-1], 1)


def _channel(modality: Modality) -> Modality:
    """The same modality with a single channel, without networks of its own."""
    return dataclasses.replace(modality, channels=1, encoder=None, decoder=None)
