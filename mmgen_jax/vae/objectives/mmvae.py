"""MMVAE: a mixture of experts with an importance-weighted bound (Shi et al., NeurIPS 2019, arXiv:1911.03393).

Equations (1) to (3) of `importance.py` without private codes, and a prior whose scales may be learned.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from mmgen_jax.types import Key, Params
from mmgen_jax.vae.latent import Inference, Mixture, distribution
from mmgen_jax.vae.objectives.base import Prior, Sizes
from mmgen_jax.vae.objectives.importance import ImportanceBound


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMVAE(ImportanceBound):
    """As published. learn_prior: whether the prior's scales are learned."""

    learn_prior: bool = True

    def check(self, sizes: Sizes) -> None:
        if sizes.private:
            raise ValueError(f"private is {dict(sizes.private)}, but MMVAE has no private codes; MMVAEPlus has")

    def init(self, key: Key, sizes: Sizes) -> Params:
        return {"prior": jnp.zeros(sizes.latent)} if self.learn_prior else {}

    def prior(self, params: Params, inference: Inference) -> Prior:
        if not self.learn_prior:
            return super().prior(params, inference)
        raw = jnp.broadcast_to(params["prior"], inference.experts.mean.shape[1:])
        return Prior(Mixture.single(distribution(self.family, jnp.zeros_like(raw), raw)), {})
