"""Whether the sounds that a model makes say what they should, as a recogniser of speech hears them.

    word error = words to change, drop or add in what is heard / words that should be said                        (1)

and the same of characters (`metrics/text.py`); both texts small and without punctuation. No recogniser hears
everything, so beside each value stands

    real     the same of the true sounds                                                                          (2)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.evals.sounds import heard, sounds
from mmgen_jax.evals.texts import compared, read
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Model, Variables

RATES = ("wer", "cer")


@dataclasses.dataclass(frozen=True)
class Transcripts:
    """ "wer/text->audio" and "cer/text->audio" with their 95 % intervals, and "/real", for each modality given alone.

    Attributes:
        recogniser: what hears: (waveforms [N, samples] in [-1, 1], samples per second) -> N texts.
        spoken: the modality that says what is spoken: texts, or a label by its names.
        limit: at most so many test examples.
        halves: how many are drawn for the interval; 0: no interval.

    Raises:
        ValueError: a number is outside its range.
    """

    recogniser: Callable[[np.ndarray, int], Sequence[str]]
    spoken: str = "text"
    limit: int = 1000
    halves: int = 20

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"Transcripts: limit must be at least 1, not {self.limit}")
        if self.halves < 0 or self.halves == 1:
            raise ValueError(f"Transcripts: halves must be 0 or at least 2, not {self.halves}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no sounds, or no modality that says what is spoken."""
        if self.spoken not in model.modalities or not sounds(model):
            there = list(model.modalities)
            raise ValueError(f"Transcripts needs a modality of sounds and {self.spoken!r}, but the model has {there}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`, or if what the metrics need is not installed."""
        self.check(model)
        values = {}
        for name in track(sounds(model), "transcripts"):
            for given in (other for other in model.modalities if other != name):
                rows = choose(data.test, (given, name, self.spoken), self.limit)
                if not len(rows):
                    continue
                x = {part: data.test.values[part][rows] for part in (given, name, self.spoken)}
                made = generate(model, variables, fold_name(key, f"{given}->{name}"), {given: x[given]}, len(rows))
                if name not in made:  # a model may not make all of its modalities
                    break
                right = plain(read(model.modalities[self.spoken], x[self.spoken]))
                said, true = (self._hear(model, name, one) for one in (made[name], x[name]))
                values |= compared(RATES, self.halves, f"{given}->{name}", said, right)
                real = compared(RATES, 0, f"{given}->{name}", true, right)
                values |= {f"{metric}/real": value for metric, value in real.items()}
        return values

    def _hear(self, model: Model, name: str, x: np.ndarray) -> np.ndarray:
        """What is heard in sounds [N, *shape], [N]."""
        modality = model.modalities[name]
        return plain(self.recogniser(heard(modality, x, modality.rate), modality.rate))


def plain(texts: Sequence[str]) -> np.ndarray:
    """Small, and with words of letters, digits and apostrophes alone, one space between them; [N]."""
    return np.array([" ".join(re.findall(r"[\w']+", str(text).lower())) for text in texts], object)
