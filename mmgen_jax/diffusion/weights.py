"""How much the loss counts at a time, and which times training draws.

The squared errors of two predictions differ by a factor. With the weight W of the error of the noise, another's is

    W g / sigma^2,   g = sigma^2 (noise), alpha^2 (data), (alpha sigma / R)^2 (v),
                         (alpha sigma / D)^2 (velocity), sigma^4 (score);  R, D as in `paths.py`                    (1)

    min-SNR     W = min(SNR, gamma) / SNR,      SNR = alpha^2 / sigma^2 (Hang et al. 2023, arXiv:2303.09556)        (2)
    sigmoid     W = sigmoid(bias - log SNR)     (Hoogeboom et al. 2025, arXiv:2410.19324)                           (3)
    ELBO        W = -1/2 d log SNR / dt = D / (alpha sigma)     (Kingma et al. 2021, arXiv:2107.00630)              (4)

Times (Esser et al. 2024, arXiv:2403.03206):

    logit-normal   t = sigmoid(mean + std z),  z ~ N(0, 1)                                                          (5)
    mode           t = 1 - u - scale (cos^2(pi u / 2) - 1 + u),  u ~ U(0, 1)                                        (6)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, get_args

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.grids import shift
from mmgen_jax.diffusion.paths import Coefficients, Prediction
from mmgen_jax.diffusion.schedules import require_one_of
from mmgen_jax.types import Array, Key


class Weight(Protocol):
    """What the squared error of a prediction is multiplied by, of the coefficients' shape."""

    def __call__(self, coefficients: Coefficients, prediction: Prediction) -> Array: ...


def gain(c: Coefficients, prediction: Prediction) -> Array:
    """g of equation (1)."""
    require_one_of("weight", "prediction", prediction, get_args(Prediction))
    if prediction == "v":
        return (c.alpha * c.sigma / (c.alpha**2 + c.sigma**2)) ** 2
    if prediction == "velocity":
        return (c.alpha * c.sigma / c.turn) ** 2
    if prediction == "score":
        return c.sigma**4
    return c.alpha**2 if prediction == "data" else c.sigma**2


@dataclasses.dataclass(frozen=True)
class Uniform:
    """The error of whatever is predicted, as it is."""

    def __call__(self, coefficients: Coefficients, prediction: Prediction) -> Array:
        return jnp.ones_like(coefficients.alpha)


@dataclasses.dataclass(frozen=True)
class MinSNR:
    """Equation (2)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"MinSNR: gamma is {self.gamma}, but must be positive")

    def __call__(self, coefficients: Coefficients, prediction: Prediction) -> Array:
        c = coefficients
        return gain(c, prediction) / jnp.maximum(c.sigma**2, c.alpha**2 / self.gamma)


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """Equation (3): min-SNR with a soft corner at SNR = e^bias."""

    bias: float = -1.0

    def __call__(self, coefficients: Coefficients, prediction: Prediction) -> Array:
        c = coefficients
        return gain(c, prediction) / (c.sigma**2 + c.alpha**2 * math.exp(-self.bias))


@dataclasses.dataclass(frozen=True)
class ELBO:
    """Equation (4): summed over the event, the error is the bound's diffusion term in nats. Infinite at t = 0."""

    def __call__(self, coefficients: Coefficients, prediction: Prediction) -> Array:
        c = coefficients
        return gain(c, prediction) / c.sigma**2 * c.turn / (c.alpha * c.sigma)


@dataclasses.dataclass(frozen=True)
class Cosmap:
    """2 / (pi (alpha^2 + sigma^2)) for every prediction (SD3, section 3.1)."""

    def __call__(self, coefficients: Coefficients, prediction: Prediction) -> Array:
        return 2 / (math.pi * (coefficients.alpha**2 + coefficients.sigma**2))


@dataclasses.dataclass(frozen=True)
class InverseVariance:
    """sigma^-2 for every prediction, infinite at t = 0."""

    def __call__(self, coefficients: Coefficients, prediction: Prediction) -> Array:
        return coefficients.sigma**-2


class Times(Protocol):
    """A distribution of the times that training draws."""

    def sample(self, key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array: ...
    def pdf(self, t: Array) -> Array: ...


@dataclasses.dataclass(frozen=True)
class UniformTimes:
    """Every time alike."""

    def sample(self, key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
        """Times of that shape."""
        return jax.random.uniform(key, shape, dtype)

    def pdf(self, t: Array) -> Array:
        """1."""
        return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class LogitNormal:
    """Equation (5): a mean above 0 draws more noise, a small std times nearer to sigmoid(mean)."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise ValueError(f"LogitNormal: std is {self.std}, but must be positive")

    def at(self, z: Array) -> Array:
        """The times that standard normal numbers lead to."""
        return jax.nn.sigmoid(self.mean + self.std * z)

    def sample(self, key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
        """Times of that shape."""
        return self.at(jax.random.normal(key, shape, dtype))

    def pdf(self, t: Array) -> Array:
        """The density at times in (0, 1)."""
        z = (jnp.log(t) - jnp.log1p(-t) - self.mean) / self.std
        return jnp.exp(-0.5 * z**2) / (math.sqrt(2 * math.pi) * self.std * t * (1 - t))


STEEPEST = 2 / (math.pi - 2)  # the scale above which equation (6) is no longer monotone


@dataclasses.dataclass(frozen=True)
class Mode:
    """Equation (6): a scale above 0 draws the middle more often, below 0 the ends."""

    scale: float = 1.29

    def __post_init__(self) -> None:
        if not -1 <= self.scale <= STEEPEST:
            raise ValueError(f"Mode: scale is {self.scale}, but must be between -1 and {STEEPEST:.4f}")

    def at(self, u: Array) -> Array:
        """The times that uniform numbers lead to."""
        return 1 - u - self.scale * (jnp.cos(jnp.pi * u / 2) ** 2 - 1 + u)

    def sample(self, key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
        """Times of that shape."""
        return self.at(jax.random.uniform(key, shape, dtype))

    def pdf(self, t: Array) -> Array:
        """The density at times in [0, 1]: one over the slope of equation (6), at the u found by bisection."""

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = (low + high) / 2
            later = self.at(middle) > t  # equation (6) falls with u
            return jnp.where(later, middle, low), jnp.where(later, high, middle)

        u, _ = jax.lax.fori_loop(0, 64, halve, (jnp.zeros_like(t), jnp.ones_like(t)))
        return 1 / (1 + self.scale * (1 - jnp.pi / 2 * jnp.sin(jnp.pi * u)))


@dataclasses.dataclass(frozen=True)
class Shifted:
    """The times of another distribution, moved towards the noise by `shift` of `grids.py`."""

    times: Times
    factor: float

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ValueError(f"Shifted: factor is {self.factor}, but must be positive")

    def sample(self, key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
        """Times of that shape."""
        return shift(self.times.sample(key, shape, dtype), self.factor)

    def pdf(self, t: Array) -> Array:
        """The density at times in (0, 1)."""
        slope = 1 / self.factor / (1 + (1 / self.factor - 1) * t) ** 2  # of the shift backwards
        return self.times.pdf(shift(t, 1 / self.factor)) * slope
