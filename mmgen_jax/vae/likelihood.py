"""The likelihood of data under a VAE, by importance sampling (Burda et al. 2016, arXiv:1509.00519).

    log p(X) ~ logsumexp_k [log p(X | z_k, w_k) + log p(z_k, w_k) - log q(z_k, w_k | X)] - log K,  z_k, w_k ~ q    (1)

X is what is present of an example. q is the posterior that conditional generation uses, private codes included; its
density is that of the whole mixture even where a component is drawn, so the weights of (1) are valid.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Batch, Key, Params
from mmgen_jax.vae.latent import Gaussian, Inference, Noise
from mmgen_jax.vae.model import VAE


def log_weights(model: VAE, params: Params, batch: Batch, inference: Inference, noise: Noise) -> Array:
    """The bracket of (1) for one draw, [B], in nats. `inference.joint` is the proposal."""
    z, private = inference.joint.choose(noise.choice).at(noise.z), inference.private_at(noise)
    total = model.log_likelihoods(params, batch, z, private).sum(0)
    total = total + Gaussian.standard(z).log_prob(z) - inference.joint.log_prob(z)
    for name, w in private.items():
        total = total + Gaussian.standard(w).log_prob(w) - inference.private[name].log_prob(w)
    return total


def proposal(model: VAE, params: Params, batch: Batch) -> Inference:
    """What the encoders say of a batch that is `masked()`, with the conditional posterior as its `joint`."""
    inference = model.encode(params, batch)
    names = tuple(model.modalities)
    joint = model.objective.fusion.conditional(params["fusion"], inference.experts, inference.present, names)
    return dataclasses.replace(inference, joint=joint)


def log_likelihood(model: VAE, params: Params, batch: Batch, key: Key, samples: int) -> Array:
    """Equation (1) with K = `samples`: log p of what is present, [B], in nats; a lower bound in expectation.

    Draws one sample after the other, so memory does not grow with K.
    """
    batch = batch.masked()
    inference = proposal(model, params, batch)

    def add(total: Array, key: Key) -> tuple[Array, None]:
        return jnp.logaddexp(total, log_weights(model, params, batch, inference, Noise.draw(key, inference))), None

    start = jnp.full(len(batch), -jnp.inf, inference.experts.mean.dtype)
    total, _ = jax.lax.scan(add, start, jax.random.split(key, samples))
    return total - math.log(samples)
