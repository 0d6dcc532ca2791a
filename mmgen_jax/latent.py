"""A model of the codes that other models, trained already, have of some modalities.

    z = (c - mu) / sigma,   c ~ N(m(x), d(x)^2)                the code that a first stage has of x alone           (1)
    mu = mean of m(x),   sigma^2 = variance of m(x) + mean of d(x)^2           for each channel, over training data (2)
    z ~ the second stage, given the z of what is given;   x = decoder(mu + sigma z)                                 (3)

With a flow as the second stage this is latent diffusion (Rombach et al. 2022, arXiv:2112.10752); a game does as well.
(m - mu) / sigma and d / sigma are worked out once for all of the training set, and every step draws z anew. To the
second stage a code is whatever its own modality of that name is: an `Image(h, w, c)` where the code is a grid, so that
it is cut into patches (`nn/grid.py` has such networks), or a `Vector(D)`. To everybody else the model has the
modalities of the first stages.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from mmgen_jax.modalities.given import answered
from mmgen_jax.modalities.places import symbols
from mmgen_jax.rng import fold_name
from mmgen_jax.types import (
    Array,
    Batch,
    FirstStage,
    Key,
    Metrics,
    Modality,
    Model,
    Params,
    Stats,
    TrainState,
    Variables,
)

PART = 100  # examples encoded at once to measure (2)
OWN = ("first", "channels")  # what is in the statistics besides those of the second stage


@flax.struct.dataclass
class Moments:
    """Mean and deviation: of codes [B, *shape], or of their channels [C]."""

    mean: Array
    deviation: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent:
    """A model of the codes of some modalities, and of all others as they are: a `types.SecondStage`.

    Attributes:
        first: for each modality that becomes a code, a model that has been trained on it; see `Experiment.first`.
        second: the model of the codes, such as a `Flow` or a `GAN`; its modality of a name in `first` says what a code
            is to it, in as many real values as the code has numbers.

    Raises:
        ValueError: a name is unknown to the second stage or to its first, which has no codes, or a code does not have
            the shape that it has for the second stage.
    """

    first: Mapping[str, FirstStage]
    second: Model

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", FrozenDict(self.first))
        if not self.first:
            raise ValueError("first is empty, but at least one modality must become a code")
        for name, model in self.first.items():
            for who, modalities in {"second": self.second.modalities, f"first[{name!r}]": model.modalities}.items():
                if name not in modalities:
                    raise ValueError(f"first names {name!r}, but the modalities of {who} are {list(modalities)}")
            if not callable(getattr(model, "to_code", None)):
                raise ValueError(f"first[{name!r}] is a {type(model).__name__}, which has no code of a modality alone")
            shape, size = self.second.modalities[name].shape, model.code_size(name)
            if math.prod(shape) != size or symbols(self.second.modalities[name]) is not None:
                raise ValueError(
                    f"{name!r} has a code of {size} numbers, but second.modalities[{name!r}] is "
                    f"{self.second.modalities[name]}: it must have {size} real values"
                )

    @property
    def modalities(self) -> dict[str, Modality]:
        """What is modelled: where there is a first stage its modality, which has a code within."""
        return {
            name: self.first[name].modalities[name] if name in self.first else m
            for name, m in self.second.modalities.items()
        }

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that can be generated."""
        return self.second.makes

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters of the second stage; and of the first ones as well, in the statistics, until `begin`."""
        params, stats = self.second.init(fold_name(key, "second"))
        first = {}
        for name, model in self.first.items():
            own, more = model.init(fold_name(key, f"first/{name}"))
            first[name] = {"params": own, **more}
        return params, {**stats, "first": first, "channels": self._unscaled}

    def begin(self, stats: Stats, trained: Mapping[str, Variables], data: Batch) -> Stats:
        """The statistics with the variables `trained` of the first stages, and (2) of `data`. Not to be compiled.

        Raises ValueError if a modality that becomes a code is in none of the examples.
        """
        stats = {**stats, "first": {name: dict(trained[name]) for name in self.first}, "channels": self._unscaled}
        parts = [self.prepare(stats, data.take(slice(i, i + PART))).values for i in range(0, len(data), PART)]
        channels = {}
        for name in self.first:
            if not data.present[name].any():
                raise ValueError(f"{name!r} is in none of {len(data)} training examples, so its codes have no scale")
            codes = jax.tree.map(lambda *x: jnp.concatenate(x), *(part[name] for part in parts))
            channels[name] = scale(jax.tree.map(lambda x, name=name: x[data.present[name]], codes))
        return {**stats, "channels": channels}

    @functools.partial(jax.jit, static_argnums=0)
    def prepare(self, stats: Stats, batch: Batch) -> Batch:
        """The batch with `Moments` of (1), standardised, in place of what becomes a code."""
        batch = batch.only(self.second.modalities).masked()
        codes = {name: self._moments(stats, name, batch.values[name]) for name in self.first}
        return Batch({**batch.values, **codes}, batch.present)

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """One step of the second stage on codes drawn by (1), of a batch that is prepared, or is as the data are."""
        if not any(isinstance(x, Moments) for x in batch.values.values()):
            batch = self.prepare(state.stats, batch)
        own = {name: state.stats[name] for name in OWN}
        inside = state.replace(stats={name: x for name, x in state.stats.items() if name not in OWN})
        inside, metrics = self.second.step(tx, inside, self.drawn(batch, fold_name(key, "codes")), key)
        return inside.replace(stats={**inside.stats, **own}), metrics

    def drawn(self, batch: Batch, key: Key) -> Batch:
        """A prepared batch with codes drawn by (1), as the second stage has them."""
        codes = {}
        for name in self.first:
            q, (centre, spread) = batch.values[name], self.second.modalities[name].standard
            z = q.mean + q.deviation * jax.random.normal(fold_name(key, name), q.mean.shape, q.mean.dtype)
            codes[name] = z * spread + centre
        return Batch({**batch.values, **codes}, batch.present)

    @functools.partial(jax.jit, static_argnums=0)
    def decoded(self, stats: Stats, values: Mapping[str, Array]) -> dict[str, Array]:
        """Equation (3): what is made of codes [B, *shape], as the second stage has them; all others as they are."""
        made = dict(values)
        for name in [name for name in values if name in self.first]:
            centre, spread = self.second.modalities[name].standard
            z, channels = (values[name] - centre) / spread, stats["channels"][name]
            code = z * _last(channels.deviation, z) + _last(channels.mean, z)
            made[name] = self.first[name].from_code(stats["first"][name], name, code.reshape(len(z), -1))
        return made

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
        **options: Any,
    ) -> dict[str, Array]:
        """n examples of `targets` (default: all), given some modalities: see `modalities.given.answered`.

        options: what else `sample` of the second stage takes, such as `weak` of `Flow`.

        Raises:
            ValueError: a name is no modality, or what is given has the wrong shape.
        """

        def make(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
            inside = self.drawn(self.prepare(variables, batch), fold_name(key, "codes"))
            if not isinstance(given, Batch):
                inside = {name: inside.values[name] for name in given or ()}
            made = self.second.sample(variables, key, n, given=inside, targets=wanted, **options)
            return self.decoded(variables, {name: made[name] for name in wanted})

        return answered(self.modalities, self.makes, n, given, targets, make)

    def token_counts(self) -> dict[str, int]:
        """How many tokens the second stage makes of each modality or its code; {} if it has no attention over them."""
        return self.second.token_counts() if callable(getattr(self.second, "token_counts", None)) else {}

    def attention_maps(self, variables: Variables, batch: Batch, key: Key) -> Array:
        """What each modality looks at while it is made of the others, as `Flow.attention_maps`; codes are drawn."""
        inside = self.drawn(self.prepare(variables, batch), fold_name(key, "codes"))
        return self.second.attention_maps(variables, inside, key)

    @property
    def _unscaled(self) -> dict[str, Moments]:
        """The channels of codes that stay as they are."""
        channels = {name: self.second.modalities[name].shape[-1] for name in self.first}
        return {name: Moments(jnp.zeros(count), jnp.ones(count)) for name, count in channels.items()}

    def _moments(self, stats: Stats, name: str, x: Array) -> Moments:
        """(m - mu) / sigma and d / sigma of x [B, *shape], in the shape that the code has for the second stage."""
        mean, deviation = self.first[name].to_code(stats["first"][name], name, x)
        mean, deviation = (part.reshape(-1, *self.second.modalities[name].shape) for part in (mean, deviation))
        channels = stats["channels"][name]
        spread = _last(channels.deviation, mean)
        return Moments((mean - _last(channels.mean, mean)) / spread, deviation / spread)


def scale(codes: Moments) -> Moments:
    """Equation (2) of codes [B, *space, C], [C] each."""
    axes = tuple(range(codes.mean.ndim - 1))
    variance = codes.mean.var(axes) + jnp.square(codes.deviation).mean(axes)
    return Moments(codes.mean.mean(axes), jnp.maximum(jnp.sqrt(variance), 1e-6))  # of a channel that says nothing


def _last(channels: Array, like: Array) -> Array:
    """[C] as [1, ..., 1, C], to go with `like` [B, *space, C]."""
    return channels.reshape((1,) * (like.ndim - 1) + (-1,))
