"""The evidence lower bound of a mixture, and MoPoE-VAE as a case of it (Sutter et al., ICLR 2021, arXiv:2105.02470).

    sum_m -log p(x_m | z) + beta [sum_S w_S KL(q_S || N(0, I)) + beta_private sum_m KL(q(w_m | x_m) || N(0, I))]    (1)

with z drawn from a component S of the posterior chosen with probability w_S: for MoPoE, uniform over the subsets whose
modalities are all present. The KL of the mixture is bounded by the weighted KL of its components.
"""

from __future__ import annotations

import dataclasses

from mmgen_jax.types import Array, Params
from mmgen_jax.vae.fusion import Fusion, MixtureOfProducts, ProductOfExperts
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Terms
from mmgen_jax.vae.schedules import at


@dataclasses.dataclass(frozen=True, kw_only=True)
class ELBO(Bound):
    """Equation (1) for any fusion: a product, generalised or plain, a mixture, pooling, a joint encoder."""

    fusion: Fusion = ProductOfExperts(prior=True)
    beta_private: float = 1.0

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        z = inference.joint.choose(noise.choice).at(noise.z)
        nll = -networks.log_probs(z, inference.private_at(noise))
        kl = (inference.joint.weights * self.kl(inference.joint.components, None, noise.z[None])).sum(0)
        kl_private = self.private_kl(inference, noise.private)
        loss = networks.weighted(nll) + at(self.beta, step) * (kl + self.beta_private * kl_private.sum(0))
        return loss, {"nll": nll, "kl": kl, "kl_private": kl_private}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoPoE(ELBO):
    """Equation (1) with the mixture over the products of all subsets, as published."""

    fusion: Fusion = MixtureOfProducts()
