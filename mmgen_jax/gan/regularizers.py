"""What else keeps a game fair, beside the penalties on slopes.

    LeCam        w (r(D(x) - a_y)^2 + r(a_x - D(y))^2),     a_x, a_y running means of D(x), D(y)               (1)
    Balanced     w_x (D(x) - D(T x))^2 + w_y (D(y) - D(T y))^2,     T an augmentation                          (2)
    Latent       critic:     w (D(G(z)) - D(G(z + s e)))^2                                                     (3)
                 generator: -v |G(z) - G(z + s e)|^2 / values                                                  (4)
    PathLength   w (l - a)^2,   l = sqrt(mean over layers of |J^T y|^2),   y ~ N(0, 1 / cells)                 (5)

(1) Tseng et al. 2021, arXiv:2104.03310, with r(u) = max(0, u) as in the published code. (2) to (4) Zhao et al. 2020,
arXiv:2002.04724: bCR and zCR. (5) Karras et al. 2020, arXiv:1912.04958: J is the Jacobian of the example by the code
or style it is made of, a the running mean of l, and a constant as a rule: it is what l is drawn to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.gan.penalties import Critic, Example, squares
from mmgen_jax.train.step import batch_mean
from mmgen_jax.types import Array, Key

relu = jax.nn.relu


@flax.struct.dataclass
class Moments:
    """The running means of (1), scalars."""

    real: Array
    fake: Array


@dataclasses.dataclass(frozen=True)
class LeCam:
    """Equation (1): a critic is not to be further from the average of the other side than it must.

    Attributes:
        weight: w; from 0.01 (much data) to 0.3 (little).
        decay: of the running means.
    """

    weight: float = 0.1
    decay: float = 0.99

    def __post_init__(self) -> None:
        if self.weight < 0 or not 0 <= self.decay < 1:
            raise ValueError(f"LeCam: weight must be at least 0 and decay in [0, 1), not {self.weight}, {self.decay}")

    def __call__(self, real: Array, fake: Array, moments: Moments) -> Array:
        """The term [B] of critic values [B]."""
        return self.weight * (relu(real - moments.fake) ** 2 + relu(moments.real - fake) ** 2)

    def update(self, moments: Moments, real: Array, fake: Array) -> Moments:
        """The means after a batch whose means are `real` and `fake`."""
        rate = 1 - self.decay
        return Moments(moments.real + rate * (real - moments.real), moments.fake + rate * (fake - moments.fake))


@dataclasses.dataclass(frozen=True)
class Balanced:
    """Equation (2), a `Penalty`: what is augmented looks as real, or as made, as before.

    Attributes:
        augment: T(key, examples), such as a `DiffAugment`.
        real, fake: w_x and w_y.
        every: as of the other penalties.
    """

    augment: Callable[[Key, Example], Example]
    real: float = 10.0
    fake: float = 10.0
    every: int = 1

    def __call__(self, critic: Critic, real: Example, fake: Example, key: Key) -> Any:
        keys, fake = jax.random.split(key), jax.lax.stop_gradient(fake)
        before, after = zip(
            *((critic(x), critic(self.augment(k, x))) for k, x in zip(keys, (real, fake), strict=True)), strict=True
        )
        squared = [jax.tree.map(lambda a, b: (a - b) ** 2, a, b) for a, b in zip(before, after, strict=True)]
        return jax.tree.map(lambda x, y: self.real * x + self.fake * y, *squared)


def near(made: Critic, x: Example, y: Example, weight: float) -> Array:
    """Equation (3) [B]: x and y made of noise z and of noise near it, and constant."""
    x, y = jax.lax.stop_gradient((x, y))
    return weight * (made(x) - made(y)) ** 2


def apart(x: Example, y: Example, weight: float) -> Array:
    """Equation (4) [B]: for the generator, they should differ all the same."""
    values = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(x))
    return -weight * squares(jax.tree.map(jnp.subtract, x, y)) / values


@dataclasses.dataclass(frozen=True)
class PathLength:
    """Equation (5): steps of one size in the code change what is made by one size.

    Attributes:
        weight: w.
        every: steps of the generator between two with this term, which then counts as often.
        decay: the share by which a moves towards the mean of l.
        constant: whether a is one; False: this batch's share in it has a gradient, as in the published code.
    """

    weight: float = 2.0
    every: int = 4
    decay: float = 0.01
    constant: bool = True

    def __post_init__(self) -> None:
        if self.weight < 0 or self.every < 1 or not 0 < self.decay <= 1:
            raise ValueError(f"{self!r}: weight must be at least 0, every at least 1 and decay in (0, 1]")

    def __call__(
        self, make: Callable[[Array], Any], code: Array, noise: Example | Key, mean: Array
    ) -> tuple[Array, Array]:
        """The term [B] and the running mean after it, of `make(code)`, code [B, D] or [B, layers, D].

        noise: y before its division by the root of the number of cells, like what is made; or a key.
        """
        made, pull = jax.vjp(make, code)
        leaves, structure = jax.tree.flatten(made)
        if isinstance(noise, jax.Array) and jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            keys = jax.random.split(noise, len(leaves))
            drawn = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
            noise = jax.tree.unflatten(structure, drawn)
        (g,) = pull(jax.tree.map(lambda x, y: y / math.sqrt(math.prod(x.shape[1:-1])), made, noise))
        n = (g**2).sum(-1)
        length = jnp.sqrt(n.reshape(len(n), -1).mean(1))
        mean = mean + self.decay * (batch_mean(length) - mean)
        towards = jax.lax.stop_gradient(mean) if self.constant else mean
        return self.weight * (length - towards) ** 2, jax.lax.stop_gradient(mean)
