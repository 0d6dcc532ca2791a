"""What can be said of a code: distributions, mixtures of them, and the randomness a VAE needs, drawn apart.

    KL(q || p) = 1/2 sum_d [log s_p^2 - log s_q^2 + (s_q^2 + (m_q - m_p)^2) / s_p^2 - 1]      (1)

A network says two numbers for each dimension, a location and a raw scale; a *family* makes a distribution of them:

    normal           N(mean, exp(raw))                                                       (2)
    normal_softplus  N(mean, (softplus(raw) + 1e-6)^2)                                       (3)
    laplace          Laplace(mean, D softmax(raw) + 1e-6), whose scales add up to D          (4)

(4) is that of MMVAE (Shi et al. 2019, arXiv:1911.03393). Everything is float32 (or float64), whatever dtype
the networks compute in.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key

Family = Literal["normal", "normal_softplus", "laplace"]
FLOOR = 1e-6


@flax.struct.dataclass
class Gaussian:
    """N(mean, diag(exp(log_var))), both [..., D]."""

    mean: Array
    log_var: Array

    @classmethod
    def standard(cls, like: Array) -> Gaussian:
        """N(0, I) in the shape and dtype of `like`."""
        return cls(jnp.zeros_like(like), jnp.zeros_like(like))

    @staticmethod
    def noise(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
        """What `at` takes: standard normal."""
        return jax.random.normal(key, shape, dtype)

    @property
    def variance(self) -> Array:
        """[..., D]."""
        return jnp.exp(self.log_var)

    def at(self, noise: Array) -> Array:
        """The sample that the standard normal `noise` [..., D] leads to, mean + std * noise."""
        mean, log_var = lifted(self, noise)
        return mean + jnp.exp(0.5 * log_var) * noise

    def log_prob(self, z: Array) -> Array:
        """log N(z; mean, var) in nats, summed over the last axis."""
        mean, log_var = lifted(self, z)
        square = jnp.square(z - mean) * jnp.exp(-log_var)
        return -0.5 * jnp.sum(square + log_var + math.log(2 * math.pi), axis=-1)

    def kl(self, other: Gaussian | None = None, *, free_bits: float = 0.0) -> Array:
        """Equation (1) in nats, summed over the last axis; without `other` against N(0, I).

        free_bits: what each dimension costs at least (Kingma et al. 2016, arXiv:1606.04934, equation 15, here for each
            example instead of the batch).
        """
        other = Gaussian.standard(self.mean) if other is None else other
        square = jnp.exp(self.log_var) + jnp.square(self.mean - other.mean)
        each = 0.5 * (other.log_var - self.log_var + square * jnp.exp(-other.log_var) - 1)
        return (jnp.maximum(each, free_bits) if free_bits else each).sum(-1)


@flax.struct.dataclass
class Laplace:
    """Laplace(mean, scale), independent in each dimension, both [..., D]."""

    mean: Array
    scale: Array

    @staticmethod
    def noise(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
        """What `at` takes: standard Laplace."""
        return jax.random.laplace(key, shape, dtype)

    @property
    def variance(self) -> Array:
        """[..., D]."""
        return 2 * jnp.square(self.scale)

    def at(self, noise: Array) -> Array:
        """The sample that the standard Laplace `noise` [..., D] leads to."""
        mean, scale = lifted(self, noise)
        return mean + scale * noise

    def log_prob(self, z: Array) -> Array:
        """The log density in nats, summed over the last axis."""
        mean, scale = lifted(self, z)
        return -jnp.sum(jnp.abs(z - mean) / scale + jnp.log(2 * scale), axis=-1)


Distribution = Gaussian | Laplace


def lifted(q: Distribution, z: Array) -> list[Array]:
    """The parameters of `q` with leading axes of size one, as many as z has more."""
    return [x.reshape((1,) * (z.ndim - x.ndim) + x.shape) for x in jax.tree.leaves(q)]


def distribution(family: Family, mean: Array, raw: Array) -> Distribution:
    """Equations (2) to (4)."""
    if family == "laplace":
        return Laplace(mean, jax.nn.softmax(raw) * raw.shape[-1] + FLOOR)
    if family == "normal_softplus":
        return Gaussian(mean, 2 * jnp.log(jax.nn.softplus(raw) + FLOOR))
    return Gaussian(mean, raw)


@flax.struct.dataclass
class Mixture:
    """sum_s weights_s q_s: components [S, B, D], weights [S, B] that sum to one over s and may be zero."""

    components: Distribution
    weights: Array

    @classmethod
    def single(cls, q: Distribution) -> Mixture:
        """A mixture of one, q [B, D]."""
        return cls(jax.tree.map(lambda x: x[None], q), jnp.ones((1, *q.mean.shape[:-1]), q.mean.dtype))

    def choose(self, gumbel: Array) -> Distribution:
        """One component [B, D] per example, drawn by the Gumbel noise [S, B] (Gumbel-max trick)."""
        return self._take(jnp.argmax(jnp.log(self.weights) + gumbel, axis=0))

    def _take(self, chosen: Array) -> Distribution:
        return jax.tree.map(lambda x: jnp.take_along_axis(x, chosen[None, :, None], axis=0)[0], self.components)

    @property
    def mean(self) -> Array:
        """[B, D]."""
        return (self.weights[..., None] * self.components.mean).sum(0)

    @property
    def variance(self) -> Array:
        """[B, D]: the mean of the variances, and the variance of the means."""
        each = self.components.variance + jnp.square(self.components.mean - self.mean[None])
        return (self.weights[..., None] * each).sum(0)

    def sample(self, key: Key) -> Array:
        """One draw [B, D] per example."""
        choice, inside = jax.random.split(key)
        q = self.choose(jax.random.gumbel(choice, self.weights.shape, self.weights.dtype))
        return q.at(q.noise(inside, q.mean.shape, q.mean.dtype))

    def log_prob(self, z: Array) -> Array:
        """The log density [..., B] at z [..., B, D]."""
        each = self.components.log_prob(z[..., None, :, :])
        weights = self.weights.reshape((1,) * (each.ndim - 2) + self.weights.shape)
        return jax.nn.logsumexp(each, axis=-2, b=jnp.broadcast_to(weights, each.shape))

    def stratum(self, u: Array) -> Distribution:
        """The component [B, D] in which the quantile `u` [B] in [0, 1) of the mixture's weights lies."""
        return self._take((jnp.cumsum(self.weights, axis=0) <= u[None]).sum(0).clip(max=len(self.weights) - 1))


@flax.struct.dataclass
class Inference:
    """All that the encoders say about a batch. M modalities, in the model's order."""

    experts: Distribution  # [M, B, D], what each modality alone says of the shared code; the prior where it is missing
    present: Array  # bool [M, B]
    joint: Mixture  # what all that is present says together
    # [B, D_m], the code from which only modality m is decoded; the prior where m is missing. {} without them.
    private: dict[str, Distribution]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def private_at(self, noise: Noise) -> dict[str, Array]:
        """The private codes that the noise leads to."""
        return {name: code.at(noise.private[name]) for name, code in self.private.items()}


@flax.struct.dataclass
class Noise:
    """Every random number of one training loss. Objectives are deterministic functions of it."""

    z: Array  # [..., B, D], of the posteriors' family
    private: dict[str, Array]  # [..., B, D_m], the same
    choice: Array  # Gumbel [S, B]; which of S is taken

    @classmethod
    def draw(cls, key: Key, inference: Inference, lead: tuple[int, ...] = (), choices: int | None = None) -> Noise:
        """For codes [*lead, B, .] and one of `choices` (default: the components of the joint posterior)."""
        experts, weights = inference.experts, inference.joint.weights
        shapes = {name: q.mean.shape for name, q in inference.private.items()}
        keys = iter(jax.random.split(key, 2 + len(shapes)))

        def codes(shape: tuple[int, ...]) -> Array:
            return experts.noise(next(keys), (*lead, *shape), experts.mean.dtype)

        return cls(
            z=codes(experts.mean.shape[1:]),
            choice=jax.random.gumbel(next(keys), (choices or len(weights), weights.shape[1]), weights.dtype),
            private={name: codes(shape) for name, shape in shapes.items()},
        )
