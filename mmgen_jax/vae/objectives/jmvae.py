"""JMVAE: a joint encoder whose knowledge the experts are taught (Suzuki et al. 2016, arXiv:1611.01891, equation 4).

    sum_m -log p(x_m | z) + beta KL(q || N(0, I)) + alpha sum_m KL(q || q_m),      z ~ q(z | X)      (1)

The last term fits each expert to the joint posterior, so that one modality alone covers what all of them together could
say. Private codes (ours) add beta beta_private sum_m KL(q(w_m | x_m) || N(0, I)).
"""

from __future__ import annotations

import dataclasses

from mmgen_jax.types import Array, Params
from mmgen_jax.vae.fusion import Fusion, JointEncoder
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Terms
from mmgen_jax.vae.schedules import Schedule, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class JMVAE(Bound):
    """Equation (1). alpha: factor on the KL to the experts; a `Ramp` like beta's for the published warm-up."""

    fusion: Fusion = JointEncoder()
    alpha: Schedule = 0.1
    beta_private: float = 1.0

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        q = inference.joint.choose(noise.choice)
        nll = -networks.log_probs(q.at(noise.z), inference.private_at(noise))
        kl, kl_experts = self.kl(q, None, noise.z), self.kl_to_experts(q, inference, noise.z)
        kl_private = self.private_kl(inference, noise.private)
        loss = networks.weighted(nll) + at(self.beta, step) * (kl + self.beta_private * kl_private.sum(0))
        loss = loss + at(self.alpha, step) * kl_experts.sum(0)
        return loss, {"nll": nll, "kl": kl, "kl_experts": kl_experts, "kl_private": kl_private}
