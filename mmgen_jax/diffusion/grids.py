"""Times that a sampler visits, [n + 1] from noise to data.

shift      t <- k t / (1 + (k - 1) t), k > 1 spends more steps near the noise (Esser et al. 2024,
           arXiv:2403.03206, equation 23); k = e^mu is the "dynamic" shift                       (1)
stretch    1 - t <- (1 - t) (1 - last) / (1 - t_last): the last time becomes `last`              (2)
karras     sigma_i = (high^(1/rho) + i / (n - 1) (low^(1/rho) - high^(1/rho)))^rho, then 0
           (Karras et al. 2022, arXiv:2206.00364, equation 5)                                    (3)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.paths import Path
from mmgen_jax.types import Array


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
    """n times from `start` to `stop` in equal steps of ln(alpha / sigma), then 0: what multistep solvers like best."""
    first, last = (path.coefficients(jnp.asarray(t)).log_snr for t in (start, stop))
    return jnp.append(times_at(path, jnp.exp(-jnp.linspace(first, last, n))), 0.0)


def times_at(path: Path, ratios: Array) -> Array:
    """The times in [0, 1] at which sigma / alpha takes the values `ratios`, by bisection."""
    ratios = jnp.asarray(ratios)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        c = path.coefficients(middle)
        before = c.sigma < ratios * c.alpha
        return jnp.where(before, middle, low), jnp.where(before, high, middle)

    return jax.lax.fori_loop(0, 64, halve, (jnp.zeros_like(ratios), jnp.ones_like(ratios)))[0]
