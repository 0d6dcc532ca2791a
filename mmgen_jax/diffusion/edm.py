"""Noise levels by themselves (EDM, Karras et al. 2022, arXiv:2206.00364): data are not shrunk, the level is sigma.

    x_t = x + s eps,   ln s = mean + std ln(t / (1 - t))                                                       (1)
    D(x, s) = c_skip x + c_out F(c_in x, .),  loss weight (s^2 + d^2) / (s d)^2,  d = std of the data          (2)
    c_skip = d^2 / r^2,  c_out = s d / r,  c_in = 1 / r,  r^2 = s^2 + d^2                                      (3)
    F = (s x / d - d eps) / r,   eps = s x_t / r^2 - d F / r                                                   (4)

Under (2) the error of F counts alike at all levels, and (4) is what F should be and what it says of the noise. With
`LogitNormal()`, as which a flow draws t unless told otherwise, (1) gives ln s ~ N(mean, std^2): the published times.
Sampled on `KarrasGrid()` by `Heun()`, or by `Churn()` with fresh noise on the way.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.paths import Coefficients, Denoised, Prediction
from mmgen_jax.types import Array

LAST = 1 - 1e-6  # as t goes to 1 the level has no end


@flax.struct.dataclass
class Preconditioning:
    """What surrounds the network F in equation (2)."""

    c_skip: Array
    c_out: Array
    c_in: Array
    c_noise: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDM:
    """Equations (1) to (4).

    data_std: of the data. mean, std: of ln(sigma) in training.
    """

    data_std: float = 0.5
    mean: float = -1.2
    std: float = 1.2
    prediction: ClassVar[Prediction] = "data"

    def __post_init__(self) -> None:
        for field in ("data_std", "std"):
            if getattr(self, field) <= 0:
                raise ValueError(f"EDM: {field} is {getattr(self, field)}, but must be positive")

    def coefficients(self, level: Array) -> Coefficients:
        """Of noise levels of any shape."""
        s = jnp.asarray(level)
        return Coefficients(jnp.ones_like(s), s, jnp.zeros_like(s), jnp.ones_like(s))

    def level(self, t: Array) -> Array:
        """Equation (1), for times of any shape in [0, 1]; the level of 0 is 0."""
        return jnp.exp(self.mean + self.std * jax.scipy.special.logit(jnp.minimum(t, LAST)))

    def clock(self, level: Array) -> Array:
        """Equation (1) backwards."""
        return jax.nn.sigmoid((jnp.log(level) - self.mean) / self.std)

    def shown(self, x: Array, level: Array) -> Array:
        """c_in x_t, about as large as noise at every level."""
        return x / self._root(level)

    def target(self, both: Denoised, level: Array) -> Array:
        """F of equation (4)."""
        return (level / self.data_std * both.data - self.data_std * both.noise) / self._root(level)

    def understood(self, out: Array, x: Array, level: Array) -> Denoised:
        """Equations (2) and (4)."""
        root = self._root(level)
        data = (self.data_std / root) ** 2 * x + self.data_std * level / root * out
        return Denoised(data, level / root**2 * x - self.data_std / root * out)

    def preconditioning(self, level: Array) -> Preconditioning:
        """Of noise levels of any shape, above 0."""
        root = self._root(level)
        return Preconditioning((self.data_std / root) ** 2, level * self.data_std / root, 1 / root, jnp.log(level) / 4)

    def weight(self, level: Array) -> Array:
        """Of the squared error of the denoised data, equation (2)."""
        return (level**2 + self.data_std**2) / (level * self.data_std) ** 2

    def _root(self, level: Array) -> Array:
        """r of equation (3)."""
        return jnp.sqrt(level**2 + self.data_std**2)
