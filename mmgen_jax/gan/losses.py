"""What the two players of a game minimise.

D(x) is what a critic thinks of a real example, D(y) of a made one, sp the softplus, and r(u) = max(0, u). Examples are
paired by their place in the batch, which matters to the relativistic losses alone.

                     critic                                            generator
    Minimax          sp(-D(x)) + sp(D(y))                              -sp(D(y))                                   (1)
    NonSaturating    the same                                          sp(-D(y))                                   (2)
    LeastSquares     (D(x) - 1)^2 / 2 + D(y)^2 / 2                     (D(y) - 1)^2 / 2                            (3)
    Hinge            r(1 - D(x)) + r(1 + D(y))                         -D(y)                                       (4)
    Wasserstein      D(y) - D(x)                                       -D(y)                                       (5)
    RpGAN            sp(D(y) - D(x))                                   sp(D(x) - D(y))                             (6)
    RaGAN            sp(E D(y) - D(x)) + sp(D(y) - E D(x))             sp(E D(x) - D(y)) + sp(D(x) - E D(y))       (7)

(1) and (2): Goodfellow et al. 2014, arXiv:1406.2661; (2) is also called the logistic loss. (3): Mao et al. 2016,
arXiv:1611.04076. (4): Lim and Ye 2017, arXiv:1705.02894. (5): Arjovsky et al. 2017, arXiv:1701.07875. (7): Jolicoeur-
Martineau 2018, arXiv:1807.00734. (6): the pairing form of it, which with the penalties R1 and R2 has no bad local
minima and provably converges (Sun et al. 2020, arXiv:2011.04926; Huang et al. 2025, arXiv:2501.05441): the default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from mmgen_jax.train.step import batch_mean
from mmgen_jax.types import Array

softplus, relu = jax.nn.softplus, jax.nn.relu
Mean = Callable[[Array], Array]  # [B] -> a scalar, over all examples that count


class Loss(Protocol):
    """Both players' losses [B] of critic values, `real` [B] of real and `fake` [B] of made examples.

    `mean` is how a loss averages over the batch, if it does.
    """

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array: ...
    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Minimax:
    """Equation (1): the generator learns little from a critic that is sure of itself."""

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return softplus(-real) + softplus(fake)

    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return -softplus(fake)


@dataclasses.dataclass(frozen=True)
class NonSaturating:
    """Equation (2)."""

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return softplus(-real) + softplus(fake)

    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return softplus(-fake)


@dataclasses.dataclass(frozen=True)
class LeastSquares:
    """Equation (3)."""

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return (real - 1) ** 2 / 2 + fake**2 / 2

    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return (fake - 1) ** 2 / 2


@dataclasses.dataclass(frozen=True)
class Hinge:
    """Equation (4)."""

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return relu(1 - real) + relu(1 + fake)

    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return -fake


@dataclasses.dataclass(frozen=True)
class Wasserstein:
    """Equation (5), for critics of bounded slope: with `WGANGP`, or spectral norm."""

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return fake - real

    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return -fake


@dataclasses.dataclass(frozen=True)
class RpGAN:
    """Equation (6)."""

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return softplus(fake - real)

    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return softplus(real - fake)


@dataclasses.dataclass(frozen=True)
class RaGAN:
    """Equation (7): each example against the average of the others."""

    def critic(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return softplus(mean(fake) - real) + softplus(fake - mean(real))

    def generator(self, real: Array, fake: Array, mean: Mean = batch_mean) -> Array:
        return self.critic(fake, real, mean)


def mean_of(there: Array) -> Mean:
    """The mean over those examples of the global batch that are `there`, bool [B]; 0 if none is."""
    share = batch_mean(there.astype(jnp.float32))
    return lambda x: batch_mean(jnp.where(there, x, 0)) / jnp.where(share > 0, share, 1)
