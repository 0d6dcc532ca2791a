"""MM-VAMP: each modality a VAE of its own, drawn together by a prior made of all experts (Sutter et al. 2024).

    sum_m [-log p(x_m | z_m) + beta (log q_m(z_m) - log 1/n sum_j q_j(z_m))],      z_m ~ q_m      (1)

n counts what is present. The prior is the mixture of the experts of the same example: cheap to agree with, dear to
stray from. Nothing here knows N(0, I), so joint generation wants a prior that is fitted afterwards (`vae/priors/`).
Private codes (ours) add beta beta_private sum_m KL(q(w_m | x_m) || N(0, I)). Source: arXiv:2403.05300.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import MixtureOfExperts
from mmgen_jax.vae.latent import Inference, Mixture, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Objective, Terms
from mmgen_jax.vae.schedules import Schedule, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMVAMP(Objective):
    """Equation (1). The divergence has no closed form and is estimated at z_m."""

    fusion = MixtureOfExperts()  # the prior of (1): not to be chosen
    beta: Schedule = 1.0
    beta_private: float = 1.0

    def noise(self, key: Key, inference: Inference) -> Noise:
        """One code for each modality."""
        return Noise.draw(key, inference, (len(inference.names),))

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        experts, names = inference.experts, inference.names
        z = experts.at(noise.z)
        private = {m: q.at(noise.private[m]) for m, q in inference.private.items()}
        nll = -networks.own(z, {m: w[names.index(m)] for m, w in private.items()})
        prior = Mixture(experts, inference.joint.weights)
        kl = jnp.where(inference.present, experts.log_prob(z) - prior.log_prob(z), 0)
        kl_private = sum((q.kl() for q in inference.private.values()), jnp.zeros_like(kl[0]))
        loss = networks.weighted(nll) + at(self.beta, step) * (kl.sum(0) + self.beta_private * kl_private)
        return loss, {"nll": nll, "kl": kl, "kl_private": kl_private}
