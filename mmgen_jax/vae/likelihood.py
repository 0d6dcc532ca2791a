"""The likelihood of data under a VAE, by importance sampling (Burda et al. 2016, arXiv:1509.00519).

    log p(X) ~ log 1/K sum_k W_k,    W_k = p(X | z_k, w_k) p(z_k, w_k) / q(z_k, w_k | X),   z_k, w_k ~ q      (1)
    error    ~ sqrt(sum_k (W_k / sum_j W_j)^2 - 1/K)                                                          (2)
    log p(Y | X) = log p(X, Y) - log p(X)                                                                     (3)

X is what is present of an example. q is a posterior whose density is known, private codes included; its density is that
of the whole mixture even where a component is drawn, and the K draws are spread over the components in proportion to
their weights (systematic sampling), so (1) is valid and less noisy than with random components. (2) is the standard
error of the logarithm by the delta method: an honest one only while the largest weight does not dominate.
"""

from __future__ import annotations

import functools
import math

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Batch, Key, Params
from mmgen_jax.vae.latent import Inference, Mixture, Noise
from mmgen_jax.vae.model import VAE


@flax.struct.dataclass
class Estimate:
    """A log-likelihood in nats and its standard error, both [B]."""

    value: Array
    error: Array


def proposal(model: VAE, params: Params, batch: Batch) -> tuple[Inference, Mixture]:
    """What the encoders say of a batch that is `masked()`, and the posterior that codes are drawn from."""
    inference = model.encode(params, batch)
    evidence = model.evidence(batch, inference.experts, inference.present)
    return inference, model.objective.proposal(params["objective"], params["fusion"], evidence)


def log_weights(
    model: VAE,
    params: Params,
    batch: Batch,
    inference: Inference,
    posterior: Mixture,
    z: Array,
    private: dict[str, Array],
) -> Array:
    """log W of equation (1), [..., B] in nats, at codes z [..., B, D] and w [..., B, D_m]."""
    prior = model.objective.prior(params["objective"], inference)
    total = model.networks(params, batch, jnp.zeros(())).log_probs(z, private).sum(0)
    nothing = ~inference.present.any(0)
    total = total + jnp.where(nothing, 0, prior.shared.log_prob(z) - posterior.log_prob(z))
    for name, w in private.items():
        ratio = prior.private[name].log_prob(w) - inference.private[name].log_prob(w)
        total = total + jnp.where(batch.present[name], ratio, 0)
    return total


@functools.partial(jax.jit, static_argnames=("model", "samples", "given", "chunk"))
def log_likelihood(
    model: VAE, params: Params, batch: Batch, key: Key, samples: int, *, given: tuple[str, ...] = (), chunk: int = 10
) -> Estimate:
    """Equation (1) with K = `samples`: log p of what is present, in nats; with `given`, (3) of all else given those.

    Compiled once for each model and K. Parts that are not present make it a marginal. In expectation (1) is a lower
    bound. `chunk` draws are decoded at once; memory beyond that grows by one number for each draw and example.

    Raises ValueError if `samples` or `chunk` is not positive or `given` names no modality.
    """
    if samples < 1 or chunk < 1:
        raise ValueError(f"samples is {samples} and chunk is {chunk}, but both must be at least 1")
    unknown = [name for name in given if name not in model.modalities]
    if unknown:
        raise ValueError(f"given names {unknown}, but the modalities are {list(model.modalities)}")
    whole = _estimate(model, params, batch.masked(), key, samples, chunk)
    if not given:
        return whole
    only = {name: there & (name in given) for name, there in batch.present.items()}
    part = _estimate(model, params, Batch(batch.values, only).masked(), key, samples, chunk)
    return Estimate(whole.value - part.value, jnp.hypot(whole.error, part.error))


def _estimate(model: VAE, params: Params, batch: Batch, key: Key, samples: int, chunk: int) -> Estimate:
    inference, posterior = proposal(model, params, batch)
    start, draws = jax.random.split(key)
    dtype = inference.experts.mean.dtype
    offset = jax.random.uniform(start, (len(batch),), dtype)

    def one(k: Array) -> Array:
        noise = Noise.draw(jax.random.fold_in(draws, k), inference)
        z = posterior.stratum((k + offset) / samples).at(noise.z)
        return log_weights(model, params, batch, inference, posterior, z, inference.private_at(noise))

    return estimate(jax.lax.map(one, jnp.arange(samples), batch_size=chunk))


def estimate(log_weights: Array) -> Estimate:
    """Equations (1) and (2) from log W, [K, B]."""
    samples = len(log_weights)
    excess = jnp.square(jax.nn.softmax(log_weights, axis=0)).sum(0) - 1 / samples
    return Estimate(jax.nn.logsumexp(log_weights, axis=0) - math.log(samples), jnp.sqrt(jnp.maximum(excess, 0)))
