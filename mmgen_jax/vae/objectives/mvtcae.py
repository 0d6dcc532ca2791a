"""MVTCAE: total correlation between modalities, with a conditional bound for each (Hwang et al., NeurIPS 2021).

    (M - alpha)/M sum_m -log p(x_m | z) + beta [(1 - alpha) KL(q || N(0, I)) + alpha/M sum_m KL(q || q_m)],  z ~ q  (1)

q is the product of the experts q_m without a prior expert. The last term makes each expert alone cover what all know
together, which is what generation from one modality needs. A missing modality's terms are zero; M stays. Private codes
(ours) add beta beta_private sum_m KL(q(w_m | x_m) || N(0, I)).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array
from mmgen_jax.vae.fusion import Fusion, ProductOfExperts
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.objectives import LogLikelihoods
from mmgen_jax.vae.schedules import warm


@dataclasses.dataclass(frozen=True, kw_only=True)
class MVTCAE:
    """Equation (1); alpha in [0, 1] and beta as published. `warmup`: steps in which beta rises from 0."""

    alpha: float = 5 / 6
    beta: float = 2.5
    beta_private: float = 1.0
    warmup: int = 0
    fusion: Fusion = ProductOfExperts()

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}, but it must be between 0 and 1")

    def __call__(
        self, inference: Inference, log_likelihoods: LogLikelihoods, weights: Array, noise: Noise, step: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        modalities = len(inference.present)
        q = inference.joint.choose(noise.choice)
        nll = -log_likelihoods(q.at(noise.z), inference.private_at(noise))
        kl_prior = q.kl()
        kl_experts = jnp.where(inference.present, jax.vmap(q.kl)(inference.experts), 0)
        kl_private = inference.private_kl()
        kl = (1 - self.alpha) * kl_prior + self.alpha / modalities * kl_experts.sum(0)
        kl = kl + self.beta_private * kl_private
        reconstruction = (modalities - self.alpha) / modalities * (weights * nll).sum(0)
        loss = reconstruction + self.beta * warm(step, self.warmup) * kl
        return loss, {"nll": nll, "kl": kl_prior, "kl_experts": kl_experts, "kl_private": kl_private}
