"""CRMVAE: reconstruct from the joint posterior and from each expert (Suzuki & Matsuo 2023).

    1/(2(M+1)) sum_m -[log p(x_m | z) + log p(x_m | z_m)] + beta/(M+1) [KL(q || N(0, I)) + sum_m KL(q || q_m)]      (1)

with z ~ q, the product of the experts q_m without a prior expert, and z_m ~ q_m. The divisors stay where modalities are
missing. Source: "Mitigating the Limitations of Multimodal VAEs with Coordination-based Approach", openreview
Rn8u4MYgeNJ.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import Fusion, ProductOfExperts
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Terms
from mmgen_jax.vae.schedules import Schedule, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class CRMVAE(Bound):
    """Equation (1). Private codes (ours) add beta/(M+1) beta_private sum_m KL(q(w_m | x_m) || N(0, I))."""

    fusion: Fusion = ProductOfExperts()
    beta: Schedule = 2.5
    beta_private: float = 1.0

    def noise(self, key: Key, inference: Inference) -> Noise:
        """Codes for the joint posterior first, then for each expert."""
        return Noise.draw(key, inference, (1 + len(inference.names),))

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        parts = 1 + len(inference.names)
        q = inference.joint.choose(noise.choice)
        both = jax.vmap(lambda alone: jnp.stack([q.at(noise.z[0]), alone]))(inference.experts.at(noise.z[1:]))
        # The private code that goes with z is drawn apart from the one that goes with z_m.
        private = {
            name: code.at(noise.private[name][jnp.array([0, 1 + inference.names.index(name)])])
            for name, code in inference.private.items()
        }
        nll = -networks.own(both, private)  # [M, 2, B]
        kl, kl_experts = self.kl(q, None, noise.z[0]), self.kl_to_experts(q, inference, noise.z[0])
        kl_private = self.private_kl(inference, jax.tree.map(lambda w: w[0], noise.private))
        kls = kl + kl_experts.sum(0) + self.beta_private * kl_private.sum(0)
        loss = networks.weighted(nll.sum(1)) / (2 * parts) + at(self.beta, step) / parts * kls
        terms = {"nll": nll[:, 0], "nll_experts": nll[:, 1], "kl": kl, "kl_experts": kl_experts}
        return loss, {**terms, "kl_private": kl_private}
