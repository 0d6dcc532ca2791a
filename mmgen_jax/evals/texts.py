"""Whether the texts that a model makes of another modality say what is written there, by `metrics/text.py`.

A picture has more than one right text, so a model that knows everything gets less than 100. Beside each value stands

    chance    training texts at random in place of what is made                                                   (1)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmgen_jax.evals.intervals import Z, spread_of_halves
from mmgen_jax.evals.metrics import text
from mmgen_jax.evals.sampling import answers, choose, generate
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Modality, Model, Variables

METRICS: Mapping[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "bleu": text.bleu,
    "chrf": text.chrf,
    "wer": text.word_error_rate,
    "cer": text.character_error_rate,
    "exact": text.exact,
}


@dataclasses.dataclass(frozen=True)
class Texts:
    """ "bleu/image->text" and so on, with the 95 % interval, and "/chance" by equation (1).

    Besides, of samples with nothing given, "distinct/text", the share of different pairs of words (`text.distinct`),
    and "/real", that of as many test texts.

    Attributes:
        names: which metrics, of `METRICS`.
        limit: at most so many test examples, and samples.
        halves: how many are drawn for the interval; 0: no interval.

    Raises:
        ValueError: a name is no metric, or a number is outside its range.
    """

    names: tuple[str, ...] = ("bleu", "chrf", "cer", "exact")
    limit: int = 1000
    halves: int = 20

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in METRICS]:
            raise ValueError(f"Texts: names has {', '.join(unknown)}, but must be of {', '.join(METRICS)}")
        if self.limit < 1:
            raise ValueError(f"Texts: limit must be at least 1, not {self.limit}")
        if self.halves < 0 or self.halves == 1:
            raise ValueError(f"Texts: halves must be 0 or at least 2, not {self.halves}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no texts."""
        if not any(map(written, model.modalities.values())):
            raise ValueError(f"Texts needs a modality of texts, but the model has {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`, or if what the metrics need is not installed."""
        self.check(model)
        modalities = {name: m for name, m in model.modalities.items() if written(m)}
        key, values = fold_name(key, "texts"), {}
        for given, name, made, true in answers(model, variables, data.test, key, self.limit, modalities):
            said, right = (read(modalities[name], x) for x in (made, true))
            values |= compared(self.names, self.halves, f"{given}->{name}", said, right)
        samples = generate(model, variables, key, {}, min(self.limit, len(data.test)))
        for name, modality in modalities.items():
            real = data.test.values[name][choose(data.test, (name,), self.limit)]
            other = choose(data.train, (name,), len(data.train))
            drawn = data.train.values[name][np.random.default_rng(0).choice(other, len(real))]
            true, chance = read(modality, real), read(modality, drawn)
            values |= {f"{metric}/{name}/chance": METRICS[metric](chance, true) for metric in self.names}
            values[f"distinct/{name}"] = text.distinct(read(modality, samples[name]))
            values[f"distinct/{name}/real"] = text.distinct(true)
        return values


def compared(names: Sequence[str], halves: int, what: str, made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """ "bleu/WHAT" and so on of texts [n] against those that they should be, with intervals from so many halves."""
    values = {}
    for metric in names:
        function, key = METRICS[metric], f"{metric}/{what}"
        values[key] = value = function(made, true)
        if halves:  # the same rows of both
            rows, of = np.arange(len(made)), lambda rows, _, f=function: f(made[rows], true[rows])
            spread = Z * spread_of_halves(of, rows, rows, halves, seed=0)
            values |= {f"{key}/low": value - spread, f"{key}/high": value + spread}
    return values


def written(modality: Modality) -> bool:
    """Whether it is one of texts."""
    return np.issubdtype(modality.dtype, np.integer) and len(modality.shape) == 1


def read(modality: Modality, x: np.ndarray) -> np.ndarray:
    """Examples [n, *shape] as strings [n]."""
    return np.array([modality.decode(one) for one in x], object)
