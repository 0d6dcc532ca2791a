"""Likelihoods p(x | out): how a decoder's output scores an example.

`out` is what a decoder returns, [B, *out_shape(shape)], any real numbers; no likelihood squashes its mean. Every
`log_prob` is fully normalised, in nats, summed over the event and computed in float32 or better whatever the compute
dtype. With m the mean and s the scale of each value:

    Normal               log p = -((x - m) / s)^2 / 2 - log s - log(2 pi) / 2
    Laplace              log p = -|x - m| / s - log(2 s)
    Bernoulli            log p = x out - softplus(out),                               x in {0, 1}
    Categorical          log p = out[x] - logsumexp(out),                             x in {0, ..., classes - 1}
    DiscretizedLogistic  p = sigma((x - m + h) / s) - sigma((x - m - h) / s),         x in {0, 2h, 4h, ..., 1}

The last is equation 2 of PixelCNN++ (Salimans et al. 2017) with one component: the lowest level also takes the mass
below it, the highest the mass above.

A learned scale is a second half of the last axis of `out`, s = exp(7 tanh(raw / 7)): about exp(raw) near 0, and never
outside (0.0009, 1100), because an unbounded one runs away on constant pixels (Rybkin et al. 2021 clip it too).
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key

LOG_SCALE_BOUND = 7.0
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class Normal:
    """Gaussian of a fixed standard deviation `scale`, or of a learned one for each value (`scale=None`)."""

    scale: float | None = 1.0

    def __post_init__(self) -> None:
        if self.scale is not None:
            _check_scale(self)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.scale is not None else _doubled(shape)

    def log_prob(self, out: Array, x: Array) -> Array:
        mean, log_scale = self._mean_and_log_scale(out)
        return _event_sum(-0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2 - log_scale - HALF_LOG_2PI)

    def mean(self, out: Array) -> Array:
        return self._mean_and_log_scale(out)[0]

    def sample(self, out: Array, key: Key) -> Array:
        mean, log_scale = self._mean_and_log_scale(out)
        return mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape, mean.dtype)

    def _mean_and_log_scale(self, out: Array) -> tuple[Array, Array | float]:
        return _split(out) if self.scale is None else (_precise(out), math.log(self.scale))


@dataclasses.dataclass(frozen=True)
class Laplace:
    """Laplace distribution of a fixed `scale`: absolute in place of squared errors, so sharper pictures."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale(self)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def log_prob(self, out: Array, x: Array) -> Array:
        return _event_sum(-jnp.abs(x - _precise(out)) / self.scale - math.log(2 * self.scale))

    def mean(self, out: Array) -> Array:
        return _precise(out)

    def sample(self, out: Array, key: Key) -> Array:
        mean = _precise(out)
        return mean + self.scale * jax.random.laplace(key, mean.shape, mean.dtype)


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Coin flips; `out` are logits.

    A density of binary values only: with grey values in (0, 1) the same formula is finite but no longer normalised, so
    the modalities' `encode` refuses them. `mean` is the probability of 1, and may be grey.
    """

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def log_prob(self, out: Array, x: Array) -> Array:
        logits = _precise(out)
        return _event_sum(x * logits - jax.nn.softplus(logits))

    def mean(self, out: Array) -> Array:
        return jax.nn.sigmoid(_precise(out))

    def sample(self, out: Array, key: Key) -> Array:
        probability = self.mean(out)
        return jax.random.bernoulli(key, probability).astype(probability.dtype)


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of `classes`; `out` are logits on the last axis, values are integers.

    `ignore`, if given, is the value of padding: where x has it, nothing is scored.
    """

    classes: int
    ignore: int | None = None

    def __post_init__(self) -> None:
        _check_count(self, "classes", 1)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, self.classes)

    def log_prob(self, out: Array, x: Array) -> Array:
        log_p = jnp.take_along_axis(jax.nn.log_softmax(_precise(out)), x[..., None], axis=-1)[..., 0]
        return _event_sum(log_p if self.ignore is None else jnp.where(x == self.ignore, 0.0, log_p))

    def mean(self, out: Array) -> Array:
        """The most probable class, int32."""
        return jnp.argmax(out, axis=-1).astype(jnp.int32)

    def sample(self, out: Array, key: Key) -> Array:
        return jax.random.categorical(key, _precise(out)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic:
    """`levels` equally spaced values from 0 to 1 (8-bit pictures: 256), each with the logistic mass of its cell.

    The scale is learned for each value. Values between two levels count as the nearer one. Being a mass, `log_prob` is
    never above 0, and -log_prob / (values * log 2) is the usual bits per dimension.
    """

    levels: int = 256

    def __post_init__(self) -> None:
        _check_count(self, "levels", 2)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return _doubled(shape)

    def log_prob(self, out: Array, x: Array) -> Array:
        mean, log_scale = _split(out)
        level = self._round(x.astype(mean.dtype))
        half = 0.5 / (self.levels - 1)
        inverse = jnp.exp(-log_scale)
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)), each factor's logarithm exact however far out.
        # Dropping sigma(-b) at the lowest level and sigma(a) at the highest opens the edges; a - b = 2 half inverse.
        above_lowest, below_highest = level > half, level < 1 - half
        log_p = jnp.where(below_highest, jax.nn.log_sigmoid((level - mean + half) * inverse), 0.0)
        log_p += jnp.where(above_lowest, jax.nn.log_sigmoid((mean - level + half) * inverse), 0.0)
        log_cell = jnp.log(-jnp.expm1(-2 * half * inverse))
        return _event_sum(log_p + jnp.where(above_lowest & below_highest, log_cell, 0.0))

    def mean(self, out: Array) -> Array:
        """The level nearest to the location of the logistic."""
        return self._round(_split(out)[0])

    def sample(self, out: Array, key: Key) -> Array:
        mean, log_scale = _split(out)
        return self._round(mean + jnp.exp(log_scale) * jax.random.logistic(key, mean.shape, mean.dtype))

    def _round(self, x: Array) -> Array:
        return jnp.round(jnp.clip(x, 0, 1) * (self.levels - 1)) / (self.levels - 1)


def _precise(out: Array) -> Array:
    """float32 for half precision; float64 stays."""
    return out.astype(jnp.promote_types(out.dtype, jnp.float32))


def _split(out: Array) -> tuple[Array, Array]:
    """Mean and bounded log scale of an output that holds both, side by side on the last axis."""
    mean, raw = jnp.split(_precise(out), 2, axis=-1)
    return mean, LOG_SCALE_BOUND * jnp.tanh(raw / LOG_SCALE_BOUND)


def _doubled(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], 2 * shape[-1])


def _event_sum(log_p: Array) -> Array:
    return log_p.reshape(log_p.shape[0], -1).sum(axis=1)


def _check_scale(likelihood: Normal | Laplace) -> None:
    scale = likelihood.scale
    if not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ValueError(f"{type(likelihood).__name__}: scale must be a number above 0, not {scale!r}.")


def _check_count(likelihood: Categorical | DiscretizedLogistic, field: str, least: int) -> None:
    value = getattr(likelihood, field)
    if type(value) is not int or value < least:
        name = type(likelihood).__name__
        raise ValueError(f"{name}: {field} must be a whole number of at least {least}, not {value!r}.")
