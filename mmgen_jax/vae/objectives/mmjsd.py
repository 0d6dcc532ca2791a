"""mmJSD: the Jensen-Shannon divergence of experts and prior as the price of a code (Sutter et al., NeurIPS 2020).

    sum_m -log p(x_m | z) + beta [pi_0 KL(N(0, I) || f) + sum_m pi_m KL(q_m || f)],      z ~ 1/n sum_m q_m      (1)

f is the dynamic prior, the geometric mean of the n experts that are present and N(0, I) with weights pi, here equal.
Private codes (as in the paper) add beta beta_private sum_m KL(q(w_m | x_m) || N(0, I)). Source: arXiv:2006.08242.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from mmgen_jax.types import Array, Params
from mmgen_jax.vae.fusion import Fusion, MixtureOfExperts, product
from mmgen_jax.vae.latent import Gaussian, Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Terms
from mmgen_jax.vae.schedules import at


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMJSD(Bound):
    """Equation (1)."""

    fusion: Fusion = MixtureOfExperts()
    beta_private: float = 1.0

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        z = inference.joint.choose(noise.choice).at(noise.z)
        nll = -networks.log_probs(z, inference.private_at(noise))
        count = inference.present.sum(0) + 1
        # Equal exponents 1/count scale every precision alike: the product's mean, and count times its variance.
        together = product(inference.experts, inference.present, prior=True)
        mean = Gaussian(together.mean, together.log_var + jnp.log(count)[:, None])
        prior = Gaussian.standard(mean.mean)
        each = jnp.where(inference.present, self.kl(inference.experts, lift(mean), noise.z[None]), 0).sum(0)
        divergence = (each + self.kl(prior, mean, noise.z)) / count
        kl_private = self.private_kl(inference, noise.private)
        loss = networks.weighted(nll) + at(self.beta, step) * (divergence + self.beta_private * kl_private.sum(0))
        return loss, {"nll": nll, "kl": divergence, "kl_private": kl_private}


def lift(q: Gaussian) -> Gaussian:
    """The same for every expert: [B, D] becomes [1, B, D]."""
    return Gaussian(q.mean[None], q.log_var[None])
