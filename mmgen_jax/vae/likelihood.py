"""The likelihood of data under a VAE, by importance sampling (Burda et al. 2016, arXiv:1509.00519).

    log p(X) ~ log 1/K sum_k W_k,    W_k = p(X | z_k) p(z_k) / q(z_k | X),   z_k ~ q      (1)
    error    ~ sqrt(sum_k (W_k / sum_j W_j)^2 - 1/K)                                      (2)
    log p(Y | X) = log p(X, Y) - log p(X)                                                 (3)

X is what is present of an example, and z all its codes: shared and private ones, or all levels of a hierarchy. q is a
posterior whose density is known. That of a mixture is the density of the whole mixture even where a component is drawn,
and the K draws are spread over the components in proportion to their weights (systematic sampling), so (1) is valid and
less noisy than with random components. (2) is the standard error of the logarithm by the delta method: an honest one
only while the largest weight does not dominate. A model says what log W is (`JointModel.log_weight`).
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Batch, Estimate, Key, Params

if TYPE_CHECKING:
    from mmgen_jax.vae.joint import JointModel


@functools.partial(jax.jit, static_argnames=("model", "samples", "given", "chunk"))
def log_likelihood(
    model: JointModel,
    params: Params,
    batch: Batch,
    key: Key,
    samples: int,
    *,
    given: tuple[str, ...] = (),
    chunk: int = 10,
) -> Estimate:
    """Equation (1) with K = `samples`: log p of what is present, in nats; with `given`, (3) of all else given those.

    Compiled once for each model and K. Parts that are not present make it a marginal. In expectation (1) is a lower
    bound. `chunk` draws are decoded at once; memory beyond that grows by one number for each draw and example.

    Raises ValueError if `samples` or `chunk` is not positive, `given` names no modality or lacks one that the model has
    no density of (the conditions of a CVAE), or the model has no likelihood (a Nexus that adapts).
    """
    if samples < 1 or chunk < 1:
        raise ValueError(f"samples is {samples} and chunk is {chunk}, but both must be at least 1")
    unknown = [name for name in given if name not in model.modalities]
    if unknown:
        raise ValueError(f"given names {unknown}, but the modalities are {list(model.modalities)}")
    conditions = [name for name in model.modalities if name not in model.makes]
    if not set(conditions) <= set(given):
        raise ValueError(f"given is {given}, but must name {conditions}, given which alone this model has a density")
    whole = _estimate(model, params, batch.masked(), key, samples, chunk)
    if set(given) == set(conditions):
        return whole
    only = {name: there & (name in given) for name, there in batch.present.items()}
    part = _estimate(model, params, Batch(batch.values, only).masked(), key, samples, chunk)
    return Estimate(whole.value - part.value, jnp.hypot(whole.error, part.error))


def _estimate(model: JointModel, params: Params, batch: Batch, key: Key, samples: int, chunk: int) -> Estimate:
    log_weight = model.log_weight(params, batch)
    start, draws = jax.random.split(key)
    offset = jax.random.uniform(start, (len(batch),))

    def one(k: Array) -> Array:
        return log_weight(jax.random.fold_in(draws, k), (k + offset) / samples)

    something = jnp.stack([batch.present[name] for name in model.makes]).any(0)

    def all_draws() -> Estimate:
        weights = jax.lax.map(one, jnp.arange(samples), batch_size=chunk)  # [K, B]
        return estimate(jnp.where(something[None], weights, 0))  # of nothing the probability is one

    certain = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(all_draws))
    return jax.lax.cond(something.any(), all_draws, lambda: certain)  # a marginal asks for nothing besides


def estimate(log_weights: Array) -> Estimate:
    """Equations (1) and (2) from log W, [K, B]."""
    samples = len(log_weights)
    excess = jnp.square(jax.nn.softmax(log_weights, axis=0)).sum(0) - 1 / samples
    return Estimate(jax.nn.logsumexp(log_weights, axis=0) - math.log(samples), jnp.sqrt(jnp.maximum(excess, 0)))
