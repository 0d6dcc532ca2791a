"""How probable a model finds test examples: negative log-likelihood in nats, and in bits for each value.

    nll  = mean_i -log p(x_i | given_i)                                                                     (1)
    bits = sum_i -log p(x_i | given_i) / (log 2 sum_i D_i),     D_i the values of x_i, of a text its symbols    (2)

Whether p is exact, a bound or an estimate is the model's business (`types.Likely`). Of a VAE what is conditional is the
difference of two estimates, so of large examples noise unless many codes are drawn. Of real values p is a density, and
(1) may be negative. Where they were rounded to L levels from 0 to 1, as pixels are to 256, the probability of a cell is
what can be compared with other work:

    log P(x) >= E_u log p(x + u / (L - 1)) - D log(L - 1),     u ~ U(-1/2, 1/2)^D                             (3)

by Jensen's inequality (uniform dequantisation: Theis et al. 2016, arXiv:1511.01844, section 3.1).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import numpy as np
from flax.core import FrozenDict

from mmgen_jax.evals.intervals import mean_interval, ratio_interval
from mmgen_jax.evals.sampling import batches, choose
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Estimate, EvalData, Key, Likely, Modality, Model, Variables


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """ "nll/image+text" of all modalities together, "nll/image" of each alone, "nll/text->image" given all others.

    Beside each its 95 % interval, which has the noise of the model's own draws in it, and "/error", the standard error
    that these draws alone make; of single modalities the same as "bits/image" and so on. What a model can only be given
    is always given. A modality that it knows by the code of a first stage is never asked for: the probability of a code
    cannot be compared with any other.

    Attributes:
        limit: at most so many test examples.
        draws: of the model, for each example and question, of which there are two for each modality and one; None: as
            many as are usual for it. A VAE decodes all of its modalities as often, a flow integrates.
        levels: L of (3) of modalities whose p is a density, by name; then nll and bits are of the cells.

    Raises:
        ValueError: a number is outside its range.
    """

    limit: int = 500
    draws: int | None = None
    levels: Mapping[str, int] = FrozenDict()

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", FrozenDict(self.levels))  # frozen, and the same after JSON
        for field in ("limit", "draws"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"Likelihood: {field} must be at least 1, not {value}")
        for name, count in self.levels.items():
            if count < 2:
                raise ValueError(f"Likelihood: levels[{name!r}] must be at least 2, not {count}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no likelihood, or `levels` names what it has no density of."""
        if not isinstance(model, Likely):
            raise ValueError(
                f"Likelihood needs a model with a method log_likelihood(), which {type(model).__name__} has not"
            )
        if not (names := scored(model)):
            raise ValueError(f"Likelihood: the model knows {list(model.modalities)} by their codes alone")
        real = [name for name in names if np.issubdtype(model.modalities[name].dtype, np.floating)]
        if strange := sorted(set(self.levels) - set(real)):
            raise ValueError(f"Likelihood: levels names {strange}, but the model has a density of {real} only")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`, and as the model does if it has no likelihood after all."""
        self.check(model)
        values = {}
        for given, of in track(questions(model), "likelihood"):
            what = f"{'+'.join(given)}->{'+'.join(of)}" if given else "+".join(of)
            rows = choose(data.test, (*given, *of), self.limit)
            if len(rows):
                test = data.test.only(model.modalities).take(rows)
                there = {name: present & (name in (*given, *of)) for name, present in test.present.items()}
                asked = Batch(self._dequantised(test.values, of), there)
                values |= self._answer(model, variables, asked, fold_name(key, what), of, what)
        return values

    def _dequantised(self, values: Mapping[str, np.ndarray], of: tuple[str, ...]) -> dict[str, np.ndarray]:
        """x + u / (L - 1) of equation (3), for those modalities of `of` that have levels."""
        rng = np.random.default_rng(0)

        def one(name: str, x: np.ndarray) -> np.ndarray:
            if name not in of or name not in self.levels:
                return x
            return (x + rng.uniform(-0.5, 0.5, x.shape) / (self.levels[name] - 1)).astype(x.dtype)

        return {name: one(name, x) for name, x in values.items()}

    def _answer(
        self, model: Model, variables: Variables, asked: Batch, key: Key, of: tuple[str, ...], what: str
    ) -> dict[str, float]:
        """Equations (1) and (2), of examples that have all modalities `of`."""

        def call(i: int, rows: np.ndarray) -> Mapping[str, Array]:
            found = estimate(model, variables, asked.take(rows), jax.random.fold_in(key, i), of, self.draws)
            return {"value": found.value, "error": found.error}

        found = {name: x.astype(np.float64) for name, x in batches(call, len(asked)).items()}
        sizes = {name: dimensions(model.modalities[name], asked.values[name]) for name in of}
        nats = -found["value"] + sum(sizes[n] * math.log(self.levels[n] - 1) for n in of if n in self.levels)
        kinds = {"nll": (nats.mean(), mean_interval(nats), 1.0)}
        if len(of) == 1:
            bits, size = nats / math.log(2), sizes[of[0]]
            kinds["bits"] = (bits.sum() / size.sum(), ratio_interval(bits, size), math.log(2) * size.mean())
        noise, values = np.sqrt(np.sum(found["error"] ** 2)) / len(nats), {}
        for kind, (value, (low, high), unit) in kinds.items():
            metric = f"{kind}/{what}"
            values |= {metric: float(value), f"{metric}/low": low, f"{metric}/high": high}
            values[f"{metric}/error"] = float(noise / unit)
        return values


def scored(model: Model) -> tuple[str, ...]:
    """The modalities that a model has a likelihood of as they are, rather than of their codes."""
    first = getattr(model, "first", {})
    return tuple(name for name in getattr(model, "makes", model.modalities) if name not in first)


def questions(model: Model) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(given, of) for all modalities together, each alone, and each given all others; each question once."""
    names = scored(model)
    always = tuple(name for name in model.modalities if name not in getattr(model, "makes", model.modalities))
    asked = [(always, names), *((always, (name,)) for name in names)]
    asked += [(tuple(other for other in model.modalities if other != name), (name,)) for name in names]
    return list(dict.fromkeys(asked))


def dimensions(modality: Modality, x: np.ndarray) -> np.ndarray:
    """D [n] of equation (2), of examples x [n, *shape]: the values of each that are no padding."""
    padding = getattr(modality.likelihood, "ignore", None)
    counts = np.ones(x.shape, bool) if padding is None else x != padding
    return counts.reshape(len(x), -1).sum(1)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def estimate(
    model: Likely, variables: Variables, batch: Batch, key: Key, of: tuple[str, ...], draws: int | None
) -> Estimate:
    """`model.log_likelihood`, compiled."""
    return model.log_likelihood(variables, batch, key, of, draws)
