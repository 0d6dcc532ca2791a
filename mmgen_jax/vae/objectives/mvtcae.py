"""MVTCAE: total correlation between modalities, with a conditional bound for each (Hwang et al., NeurIPS 2021).

    (M - alpha)/M sum_m -log p(x_m | z) + beta [(1 - alpha) KL(q || N(0, I)) + alpha/M sum_m KL(q || q_m)],  z ~ q  (1)

q is the product of the experts q_m without a prior expert. The last term makes each expert alone cover what all know
together, which is what generation from one modality needs. A missing modality's terms are zero; M stays. Private codes
(ours) add beta beta_private sum_m KL(q(w_m | x_m) || N(0, I)).
"""

from __future__ import annotations

import dataclasses

from mmgen_jax.types import Array, Params
from mmgen_jax.vae.fusion import Fusion, ProductOfExperts
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Terms
from mmgen_jax.vae.schedules import Schedule, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class MVTCAE(Bound):
    """Equation (1); alpha in [0, 1] and beta as published."""

    fusion: Fusion = ProductOfExperts()
    alpha: float = 5 / 6
    beta: Schedule = 2.5
    beta_private: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}, but it must be between 0 and 1")

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        modalities = len(inference.present)
        q = inference.joint.choose(noise.choice)
        nll = -networks.log_probs(q.at(noise.z), inference.private_at(noise))
        kl = self.kl(q, None, noise.z)
        kl_experts = self.kl_to_experts(q, inference, noise.z)
        kl_private = self.private_kl(inference, noise.private)
        kls = (1 - self.alpha) * kl + self.alpha / modalities * kl_experts.sum(0)
        kls = kls + self.beta_private * kl_private.sum(0)
        loss = (modalities - self.alpha) / modalities * networks.weighted(nll) + at(self.beta, step) * kls
        return loss, {"nll": nll, "kl": kl, "kl_experts": kl_experts, "kl_private": kl_private}
