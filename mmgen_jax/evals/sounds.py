"""How near the sounds that a model makes of another modality are to the true ones (`metrics/sound.py`, equation 1).

What is given rarely says all of a sound, so no model gets to 0:

    floor     training sounds of the same class in place of what is made: what knowing the class alone gives       (1)
    chance    any training sounds in their place                                                                  (2)
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from mmgen_jax.evals import metrics
from mmgen_jax.evals.intervals import mean_interval
from mmgen_jax.evals.sampling import answers, choose
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Model, Variables


@runtime_checkable
class Audible(Protocol):
    """A modality of sounds: an optional capability, asked for by `isinstance`."""

    rate: int  # samples per second

    def decode(self, x: np.ndarray) -> np.ndarray: ...  # [*shape] -> the waveform [samples] in [-1, 1]
    def log_mel(self, x: np.ndarray) -> np.ndarray: ...  # [*shape] -> [frames, mels], natural logarithm


def sounds(model: Model) -> list[str]:
    """The modalities of sounds."""
    return [name for name, modality in model.modalities.items() if isinstance(modality, Audible)]


def heard(modality: Audible, x: np.ndarray, rate: int) -> np.ndarray:
    """Examples [N, *shape] as waveforms at `rate` samples per second, float32 [N, samples]."""
    from scipy.signal import resample_poly  # takes half a second to import

    waves = np.stack([modality.decode(one) for one in x])
    return waves if modality.rate == rate else resample_poly(waves, rate, modality.rate, axis=1).astype(np.float32)


def require_sounds(owner: str, name: str, modality: object) -> None:
    """Raises ValueError unless a modality is one of sounds."""
    if not isinstance(modality, Audible):
        raise ValueError(f"{owner} listens to sounds, but {name!r} is {modality}")


@dataclasses.dataclass(frozen=True)
class Sounds:
    """The log-mel distance in dB, "log_mel/text->audio", with its 95 % interval, "/floor" and "/chance".

    Attributes:
        label: what says the class: a modality of the model, or a label of the experiment; without it, no floor.
        limit: at most so many test examples.
    """

    label: str = "label"
    limit: int = 1000

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"Sounds: limit must be at least 1, not {self.limit}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no modality of sounds."""
        if not sounds(model):
            raise ValueError(f"Sounds needs a modality of sounds, but the model has {list(model.modalities)}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        names = sounds(model)

        def distance(name: str, made: np.ndarray, true: np.ndarray) -> np.ndarray:
            mels = (np.stack([model.modalities[name].log_mel(x) for x in xs]) for xs in (made, true))
            return metrics.log_mel_distance(*mels)

        values = {}
        for given, name, made, true in answers(
            model, variables, data.test, fold_name(key, "sounds"), self.limit, names
        ):
            found = distance(name, made, true)
            low, high = mean_interval(found)
            values |= {f"log_mel/{given}->{name}": float(found.mean())}
            values |= {f"log_mel/{given}->{name}/low": low, f"log_mel/{given}->{name}/high": high}
        for name in names:
            for kind, (other, true) in self._others(data, name).items():
                values[f"log_mel/{name}/{kind}"] = float(distance(name, other, true).mean())
        return values

    def _others(self, data: EvalData, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Training sounds by (1) and (2), and the test sounds in whose place they stand, [n, *shape] each."""
        rng, found = np.random.default_rng(0), {}
        for kind, names in {"chance": (name,), "floor": (name, self.label)}.items():
            if not set(names) <= data.train.present.keys():
                continue
            pool, rows = choose(data.train, names, len(data.train)), choose(data.test, names, self.limit)
            there, wanted = (
                split.values[self.label][i] if kind == "floor" else np.zeros(len(i))
                for split, i in ((data.train, pool), (data.test, rows))
            )
            known = np.isin(wanted, there)
            partners = [rng.choice(pool[there == c]) for c in wanted[known]]
            if partners:
                found[kind] = data.train.values[name][partners], data.test.values[name][rows[known]]
        return found
