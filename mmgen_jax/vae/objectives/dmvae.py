"""DMVAE: shared and private codes, and a bound for the joint posterior and each expert (Lee & Pavlovic 2021).

    E(q) + sum_m E(q_m),                                                                                   (1)
    E(p) = sum_j [-log p(x_j | z, w_j) + beta_j KL(q(w_j | x_j) || N(0, I))] + beta KL(p || N(0, I))       (2)

with z ~ p, w_j ~ q(w_j | x_j) drawn anew for each, q the product of the experts and N(0, I), and all that is present to
be explained by every one of them; the bounds of missing experts are left out. Source: arXiv:2012.13024, equation 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import Fusion, ProductOfExperts
from mmgen_jax.vae.latent import Gaussian, Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Sizes, Terms, check_names
from mmgen_jax.vae.schedules import Schedule, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMVAE(Bound):
    """Equation (1). betas: beta_j by modality, 1 where none is given."""

    fusion: Fusion = ProductOfExperts(prior=True, eps=0.0)
    betas: Mapping[str, Schedule] = FrozenDict()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "betas", FrozenDict(self.betas))

    def check(self, sizes: Sizes) -> None:
        check_names("betas", self.betas, sizes)

    def noise(self, key: Key, inference: Inference) -> Noise:
        """Codes for the joint posterior first, then for each expert."""
        return Noise.draw(key, inference, (1 + len(inference.names),))

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        joint = inference.joint.choose(noise.choice)
        each: Gaussian = jax.tree.map(lambda q, m: jnp.concatenate([q[None], m]), joint, inference.experts)
        there = jnp.concatenate([jnp.ones_like(inference.present[:1]), inference.present])  # [1 + M, B]
        nll = -networks.log_probs(each.at(noise.z), inference.private_at(noise)) * there[None]  # [M, 1 + M, B]
        kl = self.kl(each, None, noise.z) * there
        kl_private = self.private_kl(inference, jax.tree.map(lambda w: w[0], noise.private))
        betas = jnp.stack([at(self.betas.get(name, 1.0), step) for name in inference.names])
        loss = networks.weighted(nll.sum(1)) + at(self.beta, step) * kl.sum(0)
        loss = loss + there.sum(0) * (betas[:, None] * kl_private).sum(0)
        return loss, {"nll": nll.sum(1), "kl": kl.sum(0), "kl_private": kl_private}
