"""CMVAE: MMVAE+ whose shared code has a prior of clusters (Palumbo et al., ICLR 2024, openreview Xk15p2fBPN).

    p(u) = sum_c pi_c p(u | c),      q(c | u) = pi_c p(u | c) / p(u)      (1)

With the exact q(c | u) the published sum over clusters equals log p(u), which is what stands here. `prune` takes
clusters away after training: their log pi is -inf, and nothing else changes, so the bound stays finite.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.latent import Distribution, Inference, Mixture, distribution
from mmgen_jax.vae.objectives.base import Prior, Sizes
from mmgen_jax.vae.objectives.importance import ImportanceBound
from mmgen_jax.vae.objectives.mmvae_plus import auxiliary, check_private


@dataclasses.dataclass(frozen=True, kw_only=True)
class CMVAE(ImportanceBound):
    """As published: clusters of a fixed scale, and every modality needs a private code.

    clusters: how many there are at first.
    learn_auxiliary: whether the scales of r_j (`mmvae_plus.py`) are learned.
    """

    clusters: int = 10
    learn_auxiliary: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters < 1:
            raise ValueError(f"clusters is {self.clusters}, but must be at least 1")

    def check(self, sizes: Sizes) -> None:
        check_private(self, sizes)

    def init(self, key: Key, sizes: Sizes) -> Params:
        means = jax.random.uniform(key, (self.clusters, sizes.latent), minval=-1, maxval=1)
        params = {"means": means, "logits": jnp.zeros(self.clusters)}
        if self.learn_auxiliary:
            params["auxiliary"] = {name: jnp.zeros(size) for name, size in sizes.private.items()}
        return params

    def prior(self, params: Params, inference: Inference) -> Prior:
        batch, latent = inference.experts.mean.shape[1:]
        means = jnp.broadcast_to(params["means"][:, None], (self.clusters, batch, latent))
        weights = jnp.broadcast_to(jax.nn.softmax(params["logits"])[:, None], (self.clusters, batch))
        clusters = Mixture(distribution(self.family, means, jnp.zeros_like(means)), weights)
        return Prior(clusters, super().prior(params, inference).private)

    def auxiliary(self, params: Params, inference: Inference) -> dict[str, Distribution]:
        return auxiliary(self.family, params.get("auxiliary", {}), inference)

    def assign(self, params: Params, u: Array) -> Array:
        """q(c | u) of equation (1), [B, C], for codes u [B, D]."""
        each = distribution(self.family, params["means"][:, None], jnp.zeros_like(params["means"])[:, None])
        return jax.nn.softmax(jax.nn.log_softmax(params["logits"])[None] + each.log_prob(u[None]).T, axis=-1)


def prune(params: Params, used: Array) -> Params:
    """The objective's parameters with only the clusters `used`, bool [C]."""
    return {**params, "logits": jnp.where(used, params["logits"], -jnp.inf)}
