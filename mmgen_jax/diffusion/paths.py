"""Paths from data (t = 0) to noise (t = 1), and what a network may predict on them.

    x_t = alpha x + sigma eps,  eps ~ N(0, I)                                                  (1)
    u   = alpha' x + sigma' eps        velocity; ' is d/dt                                     (2)
    v   = alpha eps - sigma x          (Salimans and Ho 2022, arXiv:2202.00512)                (3)
    score = -eps / sigma                                                                       (4)
    x   = (sigma' x_t - sigma u) / D,  eps = (alpha u - alpha' x_t) / D,  D = alpha sigma' - sigma alpha'   (5)
    x   = (alpha x_t - sigma v) / R,   eps = (sigma x_t + alpha v) / R,   R = alpha^2 + sigma^2             (6)

Paths: rectified flow (Liu et al. 2023, arXiv:2209.03003), the tables of `schedules.py`, what is learned (`learned.py`),
and noise levels by themselves (`edm.py`).

A time, its coefficients and what they apply to may be pytrees: `along` maps a path over the times of all modalities.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.diffusion.schedules import Schedule, alphas_cumprod, betas, require_one_of, zero_terminal_snr
from mmgen_jax.types import Array

Prediction = Literal["velocity", "noise", "data", "v", "score"]
Tree = Any  # an array, or a dict of arrays under modality names


@flax.struct.dataclass
class Coefficients:
    """Equation (1) at a time, and its derivatives; four arrays of the time's shape."""

    alpha: Array
    sigma: Array
    d_alpha: Array
    d_sigma: Array

    @property
    def log_snr(self) -> Array:
        """ln(alpha / sigma), half the logarithm of the signal-to-noise ratio; infinite at the ends."""
        return jnp.log(self.alpha) - jnp.log(self.sigma)

    @property
    def turn(self) -> Array:
        """D of equation (5)."""
        return self.alpha * self.d_sigma - self.sigma * self.d_alpha


class Path(Protocol):
    """`prediction` is what a network of this path predicts where nothing else is said.

    A path counts its time as it likes, in levels. A `Flow` has one time for all, t from 0 (data) to 1 (noise), which
    its network is told; the methods below `coefficients` are what a path must have to be a field of it.
    """

    prediction: Prediction

    def coefficients(self, level: Array) -> Coefficients: ...

    def level(self, t: Array) -> Array: ...
    def clock(self, level: Array) -> Array: ...  # t
    def shown(self, x: Array, level: Array) -> Array: ...  # what the network is given in place of x_t; linear in x
    def target(self, both: Denoised, level: Array) -> Array: ...  # what it should answer
    def understood(self, out: Array, x: Array, level: Array) -> Denoised: ...  # what its answer says about x_t = x


def along(path: Path, t: Tree) -> Tree:
    """The Coefficients of every leaf of t."""
    return jax.tree.map(path.coefficients, t)


def noised(x: Array, noise: Array, coefficients: Coefficients) -> Array:
    """Equation (1)."""
    return coefficients.alpha * x + coefficients.sigma * noise


@flax.struct.dataclass
class Denoised:
    """Both halves of one estimate, E[x | x_t] and E[eps | x_t]: arrays, or pytrees of them."""

    data: Tree
    noise: Tree

    def velocity(self, coefficients: Tree) -> Tree:
        """Equation (2); `coefficients` as `along` gives them."""
        return jax.tree.map(lambda x, e, c: c.d_alpha * x + c.d_sigma * e, self.data, self.noise, coefficients)

    def to(self, target: Prediction, coefficients: Coefficients) -> Array:
        """The prediction of the kind `target` that says this, of one array. Raises ValueError for other kinds."""
        require_one_of("Denoised.to", "target", target, get_args(Prediction))
        if target == "velocity":
            return self.velocity(coefficients)
        if target == "v":
            return coefficients.alpha * self.noise - coefficients.sigma * self.data
        if target == "score":
            return -divide(self.noise, coefficients.sigma)
        return self.data if target == "data" else self.noise


def denoised(value: Array, source: Prediction, x_t: Array, coefficients: Coefficients) -> Denoised:
    """What a prediction `value` of the kind `source` at x_t says of both halves.

    A half of which x_t and the prediction say nothing, because its coefficient is zero, is zero.
    """
    require_one_of("denoised", "source", source, get_args(Prediction))
    c = coefficients
    if source == "velocity":
        data, noise = c.d_sigma * x_t - c.sigma * value, c.alpha * value - c.d_alpha * x_t
        return Denoised(divide(data, c.turn), divide(noise, c.turn))
    if source == "v":
        square = c.alpha**2 + c.sigma**2
        return Denoised((c.alpha * x_t - c.sigma * value) / square, (c.sigma * x_t + c.alpha * value) / square)
    if source == "data":
        return Denoised(value, divide(x_t - c.alpha * value, c.sigma))
    noise = -c.sigma * value if source == "score" else value
    return Denoised(divide(x_t - c.sigma * noise, c.alpha), noise)


def convert(value: Array, source: Prediction, target: Prediction, x_t: Array, coefficients: Coefficients) -> Array:
    """A prediction of the kind `source` at x_t as one of the kind `target`. Raises ValueError for other kinds."""
    return denoised(value, source, x_t, coefficients).to(target, coefficients)


def divide(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def differentiated(values: Callable[[Array], tuple[Array, Array]], t: Array) -> Coefficients:
    """The coefficients of a path given as t -> (alpha, sigma), elementwise."""
    (alpha, sigma), (d_alpha, d_sigma) = jax.jvp(values, (t,), (jnp.ones_like(t),))
    return Coefficients(alpha, sigma, d_alpha, d_sigma)


class Plain:
    """What the paths have in common whose level is t itself, with networks that predict `prediction` of x_t."""

    def __post_init__(self) -> None:
        require_one_of(type(self).__name__, "prediction", self.prediction, get_args(Prediction))

    def level(self, t: Array) -> Array:
        """t."""
        return t

    def clock(self, level: Array) -> Array:
        """t."""
        return level

    def shown(self, x: Array, level: Array) -> Array:
        """x_t as it is."""
        return x

    def target(self, both: Denoised, level: Array) -> Array:
        """The prediction that says both halves."""
        return both.to(self.prediction, self.coefficients(level))

    def understood(self, out: Array, x: Array, level: Array) -> Denoised:
        """Both halves that the prediction `out` says."""
        return denoised(out, self.prediction, x, self.coefficients(level))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RectifiedFlow(Plain):
    """The straight line: alpha = 1 - t, sigma = t, so that u = eps - x."""

    prediction: Prediction = "velocity"

    def coefficients(self, t: Array) -> Coefficients:
        """Of times of any shape in [0, 1]."""
        t = jnp.asarray(t)
        return Coefficients(1 - t, t, -jnp.ones_like(t), jnp.ones_like(t))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM(Plain):
    """A table of `steps` noise levels with alpha^2 + sigma^2 = 1, made continuous.

    Index i of the table is the time (i + 1) / steps; the time 0 is data. In between a cubic runs through the points
    (alpha, sigma) and is drawn back to the unit circle, so that derivatives are continuous and both ends exact.

    ends: the first and last beta; as published where it is None.
    zero_terminal_snr: whether t = 1 is noise alone, which a network that predicts noise can make nothing of.
    """

    schedule: Schedule = "linear"
    steps: int = 1000
    ends: tuple[float, float] | None = None
    zero_terminal_snr: bool = False
    prediction: Prediction = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("DDPM", "schedule", self.schedule, get_args(Schedule))
        if self.steps < 2:
            raise ValueError(f"DDPM: steps is {self.steps}, but must be at least 2")
        if self.zero_terminal_snr and self.prediction in ("noise", "score"):
            raise ValueError(f"DDPM: prediction is {self.prediction!r}, but with zero_terminal_snr must be data or v")

    @functools.cached_property
    def betas(self) -> np.ndarray:
        """[steps], float64."""
        plain = betas(self.schedule, self.steps, self.ends)
        return zero_terminal_snr(plain) if self.zero_terminal_snr else plain

    @functools.cached_property
    def alphas_cumprod(self) -> np.ndarray:
        """[steps], float64."""
        return alphas_cumprod(self.betas)

    def time(self, index: Any) -> np.ndarray:
        """The time of an index of the table; -1 is data."""
        return (np.asarray(index) + 1) / self.steps

    @functools.cached_property
    def _knots(self) -> np.ndarray:
        """Points (alpha, sigma) and tangents at them, [2, steps + 1, 2]."""
        bars = np.concatenate([[1.0], self.alphas_cumprod])
        points = np.sqrt(np.stack([bars, 1 - bars], axis=-1))
        return np.stack([points, np.gradient(points, axis=0)])

    def _values(self, t: Array) -> tuple[Array, Array]:
        place = t * self.steps
        left = jnp.clip(jnp.floor(place), 0, self.steps - 1)
        f, i = (place - left)[..., None], left.astype(int)
        points, tangents = jnp.asarray(self._knots, t.dtype)
        rise = points[i + 1] - points[i]
        bend = (tangents[i] - rise) * (1 - f) - (tangents[i + 1] - rise) * f
        point = points[i] + f * rise + f * (1 - f) * bend
        alpha, sigma = point[..., 0], point[..., 1]
        radius = jnp.sqrt(alpha**2 + sigma**2)
        return alpha / radius, sigma / radius

    def coefficients(self, t: Array) -> Coefficients:
        """Of times of any shape in [0, 1]."""
        return differentiated(self._values, jnp.asarray(t))
