"""The nouns every part of the library agrees on.

A *batch* holds, under each modality's name, the values `[B, *shape]` and whether they are there at all (`bool[B]`).
Both dicts always hold every modality, so one compiled program serves complete and incomplete data alike. A *split in
memory* is the same thing with numpy arrays and B = the number of examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array
Key = jax.Array  # typed: jax.random.key(seed)
Params = Any  # nested dict of arrays
Stats = Mapping[str, Any]  # non-gradient collections, {} for most models
Variables = Mapping[str, Any]  # {"params": params, **stats}: what a network is applied to
Metrics = Mapping[str, Array]  # scalars


@flax.struct.dataclass
class Batch:
    """B examples. `values[name]: [B, *shape]`, `present[name]: bool[B]`, for every modality of the model."""

    values: dict[str, Array]
    present: dict[str, Array]

    @classmethod
    def nothing(cls, modalities: Mapping[str, Modality], n: int) -> Batch:
        """n examples of which nothing is present."""
        zeros = {name: jnp.zeros((n, *m.shape), m.dtype) for name, m in modalities.items()}
        return cls(zeros, {name: jnp.zeros(n, bool) for name in zeros})

    def masked(self) -> Batch:
        """Zero in place of what is not present, so that whatever stands there (even NaN) can change nothing."""
        return Batch(self.completed(jax.tree.map(jnp.zeros_like, self.values)), self.present)

    def completed(self, made: Mapping[str, Array]) -> dict[str, Array]:
        """The values of the modalities of `made` where they are present, and `made` [B, *shape] where they are not."""

        def choose(name: str, x: Array) -> Array:
            there = self.present[name]
            return jnp.where(there.reshape(there.shape + (1,) * (x.ndim - 1)), self.values[name], x)

        return {name: choose(name, x) for name, x in made.items()}

    def only(self, names: Collection[str]) -> Batch:
        """The same with the modalities `names` and no others, in its own order."""
        parts = ({name: x for name, x in part.items() if name in names} for part in (self.values, self.present))
        return Batch(*parts)

    def take(self, indices: Any) -> Batch:
        """The examples at `indices` (an integer array or a slice), for numpy and jax arrays alike."""
        return jax.tree.map(lambda x: x[indices], self)

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))


@flax.struct.dataclass
class TrainState:
    """All that training changes, arrays only: exactly what a checkpoint holds."""

    step: Array
    params: Params
    stats: Stats
    opt: optax.OptState
    ema: Params | None = None

    @classmethod
    def create(cls, model: Model, tx: optax.GradientTransformation, key: Key, *, ema: bool = False) -> TrainState:
        """The state before the first step. Jit it (`jax.jit(TrainState.create, ...)`) for large models."""
        params, stats = model.init(key)
        average = jax.tree.map(jnp.copy, params) if ema else None
        return cls(jnp.zeros((), jnp.int32), params, stats, tx.init(params), average)

    @property
    def variables(self) -> Variables:
        """What to sample and evaluate with: the averaged parameters where there are any."""
        return {"params": self.params if self.ema is None else self.ema, **self.stats}


class Likelihood(Protocol):
    """p(x | out), where `out` is what a decoder returns. Fully normalised, in nats, summed over the event."""

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]: ...
    def log_prob(self, out: Array, x: Array) -> Array: ...  # [B]
    def mean(self, out: Array) -> Array: ...  # the most probable value where a mean makes no sense
    def sample(self, out: Array, key: Key) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Rendering:
    """How a person meets one example: the bytes of a small file and its suffix (png, gif, wav, txt)."""

    suffix: str
    data: bytes


@runtime_checkable
class Modality(Protocol):
    """The narrow waist between families and data: one kind of array, and all that is particular to it.

    `decode` below is a decoder network with its parameters already in it (`z -> out`; text: `z, x -> out`).
    """

    likelihood: Likelihood

    @property
    def shape(self) -> tuple[int, ...]: ...  # of one example, without the batch axis
    @property
    def dtype(self) -> np.dtype: ...

    # networks, as flax.linen modules
    def encoder_network(self, outputs: int, dtype: Any) -> Any: ...  # [B, *shape] -> [B, outputs]
    def decoder_network(self, dtype: Any) -> Any: ...  # [B, Z] -> out
    def log_prob(self, decode: Any, z: Array, x: Array) -> Array: ...  # [B]
    def generate(self, decode: Any, z: Array, key: Key | None) -> Array: ...  # [B, *shape]; no key: noise-free

    # tokens, for the attention families
    standard: tuple[float, float]  # centre and spread that bring real values to about -1 to 1
    axes: tuple[str, ...]  # what the columns of `positions` are, of "second", "row", "column", "index"

    def tokens_in(self, width: int, dtype: Any) -> Any: ...  # [B, *shape] -> [B, T, width]
    def tokens_out(self, dtype: Any) -> Any: ...  # [B, T, width] -> out
    def positions(self) -> np.ndarray: ...  # [T, axes]: pixels, or seconds for what has a rate
    def token_of(self) -> np.ndarray: ...  # int [*shape]: the one token that each value goes into

    # people
    def encode(self, raw: Any) -> np.ndarray: ...  # raises ValueError in one sentence
    def decode(self, x: Any) -> Any: ...
    def render(self, x: Any) -> Rendering: ...


class Model(Protocol):
    """A frozen dataclass of hyper-parameters with pure methods; `step` is what the training loop compiles."""

    modalities: Mapping[str, Modality]

    def init(self, key: Key) -> tuple[Params, Stats]: ...
    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]: ...
    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,  # a Batch: each example has its own parts
        targets: tuple[str, ...] | None = None,
    ) -> dict[str, Array]: ...


@flax.struct.dataclass
class Estimate:
    """A log-likelihood [B] in nats, and its standard error [B] over the random draws that it rests on."""

    value: Array
    error: Array


@runtime_checkable
class Likely(Protocol):
    """A model that says how probable an example is: an optional capability, asked for by `isinstance`."""

    def log_likelihood(
        self, variables: Variables, batch: Batch, key: Key, of: tuple[str, ...], draws: int | None = None
    ) -> Estimate:
        """log p of the modalities `of` together, given all others that are present in the batch.

        Those of `of` that an example does not have are left out of it. draws: how many random ones an estimate rests
        on; None: as many as the model thinks fit.
        """
        ...


class FirstStage(Model, Protocol):
    """A model with a code, D numbers, of each modality by itself: what another model can be trained on instead."""

    def code_size(self, name: str) -> int: ...  # D
    def to_code(self, variables: Variables, name: str, x: Array) -> tuple[Array, Array]: ...  # mean, deviation [B, D]
    def from_code(self, variables: Variables, name: str, code: Array) -> Array: ...  # [B, *shape], without noise


class SecondStage(Model, Protocol):
    """A model that is trained on what other models, trained before it, make of each example: codes, or symbols.

    `first` has these by name; `Experiment.first` their runs. What was learned by them is kept in the `stats`, so that
    a checkpoint is whole. Until `begin` has put it there, they are as untrained as the rest.
    """

    first: Mapping[str, Model]

    def begin(self, stats: Stats, trained: Mapping[str, Variables], data: Batch) -> Stats:
        """The stats to train with: `trained` are the variables of `first`, `data` some examples to measure things on.

        Not to be compiled. The loop calls it once, when a run is new.
        """
        ...

    def prepare(self, stats: Stats, batch: Batch) -> Batch:
        """A batch as far as it can be worked out ahead, without randomness. `step` takes it as well as a plain one.

        The loop calls it for a training set in memory, once; of one that is streamed every step prepares its batch.
        """
        ...


class Source(Protocol):
    """Random access to raw examples under modality names; a part that is missing is absent, or None."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> dict[str, Any]: ...


class Data(Protocol):
    """A data set as an experiment names it: a frozen dataclass that opens one split."""

    def source(self, split: str) -> Source: ...  # "train" or "test"


@dataclasses.dataclass(frozen=True)
class EvalData:
    """What an evaluator may look at: both splits in memory (numpy), and a folder to keep trained judges in.

    The splits hold the model's modalities and, where the experiment has any, the labels.
    """

    train: Batch
    test: Batch
    cache: Path


class Evaluator(Protocol):
    """A frozen dataclass that measures a model; the names it returns are the columns of every table.

    One that cannot measure every model may have a method `check(model)`, which raises ValueError for those: an
    `Experiment` asks it before anything is computed.
    """

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]: ...
