"""Times that a sampler visits, [n + 1] from noise to data.

shift      t <- k t / (1 + (k - 1) t), k > 1 spends more steps near the noise (Esser et al. 2024,
           arXiv:2403.03206, equation 23); k = e^mu is the "dynamic" shift                       (1)
stretch    1 - t <- (1 - t) (1 - last) / (1 - t_last): the last time becomes `last`              (2)
karras     sigma_i = (high^(1/rho) + i / (n - 1) (low^(1/rho) - high^(1/rho)))^rho, then 0
           (Karras et al. 2022, arXiv:2206.00364, equation 5)                                    (3)

Which is best depends on data, path and solver, so it is a field of the model. On the straight path steps of one size
do well where data are about as large as noise (two Gaussians: best with Euler and Heun; DPM-Solver++ of few steps was
better with steps of equal log-SNR); data that fill little of their space ask for small steps at low noise, large
pictures for small steps at high noise.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.paths import Path
from mmgen_jax.types import Array


class Grid(Protocol):
    """Where a sampler's steps end."""

    def times(self, path: Path, n: int) -> Array:
        """The times [n + 1] of n steps on that path, falling from at most 1 to 0."""


@dataclasses.dataclass(frozen=True)
class UniformGrid:
    """Steps of one size."""

    def times(self, path: Path, n: int) -> Array:
        """See `Grid`."""
        return uniform(n)


@dataclasses.dataclass(frozen=True)
class ShiftedGrid:
    """Equation (1): with a factor above 1 smaller steps near the noise, as large pictures want them."""

    factor: float = 3.0

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"ShiftedGrid: factor is {self.factor}, but must be positive")

    def times(self, path: Path, n: int) -> Array:
        """See `Grid`."""
        return shift(uniform(n), self.factor)


@dataclasses.dataclass(frozen=True)
class LogSNRGrid:
    """Equal steps of ln(alpha / sigma) from the time `start` to `stop`, and one to 0."""

    start: float = 0.999
    stop: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.stop < self.start < 1:
            raise ValueError(f"LogSNRGrid: start, stop are {self.start}, {self.stop}, but must fall within 1 and 0")

    def times(self, path: Path, n: int) -> Array:
        """See `Grid`."""
        return log_snr(path, n, self.start, self.stop)


@dataclasses.dataclass(frozen=True)
class KarrasGrid:
    """Equation (3) from the noise level sigma / alpha = `high` to `low`, and one to 0."""

    low: float = 0.002
    high: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"KarrasGrid: low, high are {self.low}, {self.high}, but must rise from above 0")
        if not self.rho > 0:
            raise ValueError(f"KarrasGrid: rho is {self.rho}, but must be positive")

    def times(self, path: Path, n: int) -> Array:
        """See `Grid`. Where the path does not reach a noise level, the time is 1."""
        return times_at(path, karras(n, self.low, self.high, self.rho))


def uniform(n: int, start: float = 1.0, stop: float = 0.0) -> Array:
    """n equal steps from `start` to `stop`."""
    return jnp.linspace(start, stop, n + 1)


def shift(t: Array, factor: float) -> Array:
    """Equation (1) with k = `factor`, of times of any shape in [0, 1]."""
    return factor * t / (1 + (factor - 1) * t)


def stretch(t: Array, last: float) -> Array:
    """Equation (2), of descending times."""
    return 1 - (1 - t) * (1 - last) / (1 - t[-1])


def karras(n: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Array:
    """Equation (3): noise levels sigma / alpha, by default those of `EDM`; `times_at` makes times of a path of them."""
    roots = jnp.linspace(high ** (1 / rho), low ** (1 / rho), n)
    return jnp.append(roots**rho, 0.0)


def log_snr(path: Path, n: int, start: float = 0.999, stop: float = 0.001) -> Array:
    """n times from `start` to `stop` in equal steps of ln(alpha / sigma), then 0."""
    first, last = (path.coefficients(path.level(jnp.asarray(t))).log_snr for t in (start, stop))
    return jnp.append(times_at(path, jnp.exp(-jnp.linspace(first, last, n))), 0.0)


def times_at(path: Path, ratios: Array) -> Array:
    """The times in [0, 1] at which sigma / alpha takes the values `ratios`, by bisection."""
    ratios = jnp.asarray(ratios)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        c = path.coefficients(path.level(middle))
        before = c.sigma < ratios * c.alpha
        return jnp.where(before, middle, low), jnp.where(before, high, middle)

    return jax.lax.fori_loop(0, 64, halve, (jnp.zeros_like(ratios), jnp.ones_like(ratios)))[0]
