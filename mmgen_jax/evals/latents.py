"""What the shared code knows of the class, given some modalities: told by a linear probe, neighbours and clusters.

All look at posterior means. They are fitted on the training split and judged on the test split:

    probe      share of test examples whose class a linear classifier tells (`probe.py`, equation 1)
    knn        the same, told by the nearest training examples (equation 2)
    cluster    share of those that k-means (`kmeans.py`), which sees no class, puts into a cluster where most training
               examples are of their class; the mean over several runs, as MultiVae's metric (Senellart et al. 2025)

They differ: a probe may look where the class is, clusters show where the code varies most.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmgen_jax.evals import probe
from mmgen_jax.evals.coherence import given_sets
from mmgen_jax.evals.sampling import batches, choose
from mmgen_jax.nn.kmeans import kmeans, nearest
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, EvalData, Key, Model, Params, Variables

SHARED = ""  # the name of the code that all modalities share


@runtime_checkable
class Coded(Protocol):
    """A model with codes: an optional capability, asked for by `isinstance`."""

    def codes(self, params: Params, batch: Batch, key: Key | None) -> Mapping[str, Array]:
        """Codes [B, .] by name, the shared one as `SHARED`, of a batch that is masked; without a key, their means."""
        ...


@dataclasses.dataclass(frozen=True)
class Latents:
    """Linear probe, nearest neighbours and clustering of the shared code.

    Returns "latents/probe/image+text", "latents/knn/..." and "latents/cluster/..." for each set of given modalities;
    the label itself is never given. A set of which no example has all parts and a label is left out.

    Attributes:
        label: what says the class: a modality of the model, or one of the experiment's labels.
        subsets: which sets of modalities are given: "single" ones and all of them together, or "all" sets.
        limit: at most so many test examples.
        fit_limit: at most so many training examples.
        clusters: how many; None is one for each class.
        runs: of k-means, each from other centres.
    """

    label: str = "label"
    subsets: Literal["all", "single"] = "single"
    limit: int = 1000
    fit_limit: int = 10_000
    clusters: int | None = None
    runs: int = 20

    def __post_init__(self) -> None:
        if self.subsets not in ("all", "single"):
            raise ValueError(f'Latents: subsets must be "all" or "single", not {self.subsets!r}')
        for field in ("limit", "fit_limit", "clusters", "runs"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"Latents: {field} must be at least 1, not {value}")

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no codes."""
        if not isinstance(model, Coded):
            raise ValueError(f"Latents needs a model with a method codes(), which {type(model).__name__} has not")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`, or if the model has no modality but the label, or the data no label."""
        self.check(model)
        names = tuple(name for name in model.modalities if name != self.label)
        if self.label not in data.test.present or not names:
            raise ValueError(
                f"Latents needs {self.label!r} and another modality, but there is only {list(data.test.present)}"
            )
        train = data.train.take(choose(data.train, (self.label,), self.fit_limit))
        test = data.test.take(choose(data.test, (self.label,), self.limit))
        if not len(train) or not len(test):
            return {}
        classes = 1 + max(int(split.values[self.label].max()) for split in (train, test))
        values = {}
        for given in track([*given_sets(names, self.subsets), names], "latents"):
            sides = [Side.of(model, variables, split, given, self.label) for split in (train, test)]
            if all(side.used.any() for side in sides):
                named = "+".join(given)
                keys = jax.random.split(fold_name(key, named), self.runs)
                probed, clustered = accuracies(*sides, keys, classes, self.clusters or classes)
                found = {"probe": float(probed), "knn": nearest_share(*sides), "cluster": float(clustered)}
                values |= {f"latents/{kind}/{named}": share for kind, share in found.items()}
        return values


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Side:
    """Codes and classes of the examples of a split."""

    codes: np.ndarray  # [N, D]
    classes: np.ndarray  # int [N]
    used: np.ndarray  # bool [N], those that have all that is given

    @classmethod
    def of(cls, model: Any, variables: Variables, split: Batch, given: Sequence[str], label: str) -> Side:
        used = np.logical_and.reduce([split.present[name] for name in given])
        return cls(means(model, variables, split, given)[SHARED], split.values[label], used)

    def share(self, right: Array) -> Array:
        """Of the examples that are used, for which `right` [N] is true."""
        return jnp.where(self.used, right, False).sum() / self.used.sum()


@functools.partial(jax.jit, static_argnames=("classes", "clusters"))
def accuracies(train: Side, test: Side, keys: Key, classes: int, clusters: int) -> tuple[Array, Array]:
    """On the test side: of the probe, and of the clusters, the mean over a run of k-means with each of the keys [R]."""
    fitted = probe.fit(train.codes, train.classes, train.used, classes)

    def clustering(key: Key) -> Array:
        centres = kmeans(key, train.codes, train.used, clusters)
        count = jnp.zeros((clusters, classes)).at[nearest(centres, train.codes), train.classes].add(train.used)
        majority = jnp.where(count.any(1), count.argmax(1), -1)  # a cluster of no training example says no class
        return test.share(majority[nearest(centres, test.codes)] == test.classes)

    probed = test.share(probe.logits(fitted, test.codes).argmax(-1) == test.classes)
    return probed, lax.map(clustering, keys).mean()


def nearest_share(train: Side, test: Side) -> float:
    """On the test side, of the vote of the nearest training examples."""
    said = probe.vote(test.codes[test.used], train.codes[train.used], train.classes[train.used])
    return float(np.mean(said == test.classes[test.used]))


def means(model: Any, variables: Variables, data: Batch, given: Sequence[str]) -> dict[str, np.ndarray]:
    """The posterior means of all codes, [N, .] by name, if of each example only `given` is there, as far as it is."""
    names = model.modalities  # the data may have labels besides
    there = {name: data.present[name] & (name in given) for name in names}
    parts = Batch({name: data.values[name] for name in names}, there)
    return batches(lambda _, rows: posterior_means(model, variables, parts.take(rows)), len(data))


@functools.partial(jax.jit, static_argnums=0)
def posterior_means(model: Any, variables: Variables, batch: Batch) -> Mapping[str, Array]:
    """Of a batch that need not be masked."""
    return model.codes(variables["params"], batch.masked(), None)
