"""Diagonal Gaussians, mixtures of them, and the randomness a VAE needs, drawn apart from the arithmetic.

    KL(q || p) = 1/2 sum_d [log s_p^2 - log s_q^2 + (s_q^2 + (m_q - m_p)^2) / s_p^2 - 1]      (1)

Everything is float32 (or float64), whatever dtype the networks compute in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key


@flax.struct.dataclass
class Gaussian:
    """N(mean, diag(exp(log_var))), both [..., D]."""

    mean: Array
    log_var: Array

    @classmethod
    def standard(cls, like: Array) -> Gaussian:
        """N(0, I) in the shape and dtype of `like`."""
        return cls(jnp.zeros_like(like), jnp.zeros_like(like))

    def at(self, noise: Array) -> Array:
        """The sample that the standard normal `noise` leads to, mean + std * noise."""
        return self.mean + jnp.exp(0.5 * self.log_var) * noise

    def log_prob(self, z: Array) -> Array:
        """log N(z; mean, var) in nats, summed over the last axis."""
        square = jnp.square(z - self.mean) * jnp.exp(-self.log_var)
        return -0.5 * jnp.sum(square + self.log_var + math.log(2 * math.pi), axis=-1)

    def kl(self, other: Gaussian | None = None) -> Array:
        """Equation (1) in nats, summed over the last axis; without `other` against N(0, I)."""
        other = Gaussian.standard(self.mean) if other is None else other
        square = jnp.exp(self.log_var) + jnp.square(self.mean - other.mean)
        return 0.5 * jnp.sum(other.log_var - self.log_var + square * jnp.exp(-other.log_var) - 1, axis=-1)


@flax.struct.dataclass
class Mixture:
    """sum_s weights_s N_s: components [S, B, D], weights [S, B] that sum to one over s and may be zero."""

    components: Gaussian
    weights: Array

    def choose(self, gumbel: Array) -> Gaussian:
        """One component [B, D] per example, drawn by the Gumbel noise [S, B] (Gumbel-max trick)."""
        chosen = jnp.argmax(jnp.log(self.weights) + gumbel, axis=0)[None, :, None]
        return jax.tree.map(lambda x: jnp.take_along_axis(x, chosen, axis=0)[0], self.components)

    def log_prob(self, z: Array) -> Array:
        """The log density [..., B] at z [..., B, D]."""
        each = self.components.log_prob(z[..., None, :, :])
        return jax.nn.logsumexp(each, axis=-2, b=jnp.broadcast_to(self.weights, each.shape))


@flax.struct.dataclass
class Inference:
    """All that the encoders say about a batch. M modalities, in the model's order."""

    experts: Gaussian  # [M, B, D], what each modality alone says of the shared code
    present: Array  # bool [M, B]
    joint: Mixture  # what all that is present says together
    # [B, D_m], the code from which only modality m is decoded; the prior N(0, I) where m is missing. {} without them.
    private: dict[str, Gaussian]

    def private_at(self, noise: Noise) -> dict[str, Array]:
        """The private codes that the noise leads to."""
        return {name: code.at(noise.private[name]) for name, code in self.private.items()}

    def private_kl(self) -> Array:
        """sum_m KL(q(w_m | x_m) || N(0, I)), [B]; zero for what is missing."""
        return sum((code.kl() for code in self.private.values()), jnp.zeros_like(self.experts.mean[0, :, 0]))


@flax.struct.dataclass
class Noise:
    """Every random number of one training loss. Objectives are deterministic functions of it."""

    z: Array  # normal [B, D]
    choice: Array  # Gumbel [S, B]
    private: dict[str, Array]  # normal [B, D_m]

    @classmethod
    def draw(cls, key: Key, inference: Inference) -> Noise:
        """Noise in the shapes that `inference` asks for."""
        weights, dtype = inference.joint.weights, inference.experts.mean.dtype
        shapes: Mapping[str, tuple] = {name: q.mean.shape for name, q in inference.private.items()}
        keys = iter(jax.random.split(key, 2 + len(shapes)))
        return cls(
            z=jax.random.normal(next(keys), inference.experts.mean.shape[1:], dtype),
            choice=jax.random.gumbel(next(keys), weights.shape, dtype),
            private={name: jax.random.normal(next(keys), shape, dtype) for name, shape in shapes.items()},
        )
