"""How evenly a model's samples change with their code (`metrics/smoothness.py` has the equations)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from mmgen_jax.evals import metrics
from mmgen_jax.evals.distances import Extractor
from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.intervals import Z
from mmgen_jax.evals.sampling import batches
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, EvalData, Key, Model, Variables


@runtime_checkable
class Walkable(Protocol):
    """A model that makes things of a code out of nothing: an optional capability, asked for by `isinstance`."""

    def between(self, variables: Variables, key: Key, n: int, shares: Array) -> dict[str, Array]:
        """What is made at shares [n] of the ways between n pairs of codes, which are the same for the same key."""
        ...


@dataclasses.dataclass(frozen=True)
class Smoothness:
    """The path length of every modality that is made of real values, "length/image", with its 95 % interval.

    Attributes:
        label: whose classes judges are trained to tell: a modality of the model, or a label of the experiment.
        ways: how many are walked, at one place each.
        step: how far, as a share of the way.
        extractor: where features are from, as in `Distances`.
    """

    label: str = "label"
    ways: int = 1000
    step: float = 1e-4
    extractor: Extractor = Classifier()

    def __post_init__(self) -> None:
        if self.ways < 2:
            raise ValueError(f"Smoothness: ways must be at least 2, not {self.ways}")
        if not self.step > 0:
            raise ValueError(f"Smoothness: step must be above 0, not {self.step}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no ways between codes."""
        if not isinstance(model, Walkable):
            raise ValueError(f"Smoothness needs a model with a method between(), which {type(model).__name__} has not")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        shares, key = np.random.default_rng(0).uniform(size=self.ways), fold_name(key, "smoothness")
        real = [name for name, m in model.modalities.items() if np.issubdtype(m.dtype, np.floating)]
        values: dict[str, float] = {"length/samples": float(self.ways)}
        for name in track(real, "smoothness"):
            judge = self.extractor.fit(name, model.modalities[name], data, self.label)

            def features(at: np.ndarray, name: str = name, judge: Any = judge) -> np.ndarray:
                at = at.astype(np.float32)
                made = batches(
                    lambda i, rows: walk(model, variables, jax.random.fold_in(key, i), at[rows], name), len(at)
                )
                return judge.features(made[name])

            length, error = metrics.path_length(features, shares, self.step)
            spread = Z * error
            values |= {
                f"length/{name}": length,
                f"length/{name}/low": length - spread,
                f"length/{name}/high": length + spread,
            }
        return values


@functools.partial(jax.jit, static_argnames=("model", "name"))
def walk(model: Walkable, variables: Variables, key: Key, shares: Array, name: str) -> dict[str, Array]:
    """One modality at shares [n] of n ways."""
    return {name: model.between(variables, key, len(shares), shares)[name]}
