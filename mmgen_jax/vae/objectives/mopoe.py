"""MoPoE-VAE: the ELBO of a mixture over the products of all subsets of modalities (Sutter et al., ICLR 2021).

    sum_m -log p(x_m | z) + beta [sum_S w_S KL(q_S || N(0, I)) + beta_private sum_m KL(q(w_m | x_m) || N(0, I))]    (1)

with z drawn from a subset S chosen with probability w_S, uniform over the subsets whose modalities are all present.
The KL of the mixture is bounded by the weighted KL of its components. With another `fusion` the same bound is that of a
product (one component) or of a mixture of experts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mmgen_jax.types import Array
from mmgen_jax.vae.fusion import Fusion, MixtureOfProducts
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.objectives import LogLikelihoods
from mmgen_jax.vae.schedules import warm


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoPoE:
    """Equation (1), as published. `warmup`: steps in which beta rises from 0."""

    beta: float = 1.0
    beta_private: float = 1.0
    warmup: int = 0
    fusion: Fusion = MixtureOfProducts()

    def __call__(
        self, inference: Inference, log_likelihoods: LogLikelihoods, weights: Array, noise: Noise, step: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        z = inference.joint.choose(noise.choice).at(noise.z)
        nll = -log_likelihoods(z, inference.private_at(noise))
        kl = (inference.joint.weights * inference.joint.components.kl()).sum(0)
        kl_private = inference.private_kl()
        beta = self.beta * warm(step, self.warmup)
        loss = (weights * nll).sum(0) + beta * (kl + self.beta_private * kl_private)
        return loss, {"nll": nll, "kl": kl, "kl_private": kl_private}
