"""The masked bound: learn p(x_S), and what the rest adds to it, for random subsets S (Hirt et al., TMLR 2024).

    -log p(x_S | z_S) + beta KL(q_S || N(0, I))      z_S ~ q(z | x_S)       (1)
    -log p(x_R | z) + beta KL(q || q_S)              z ~ q(z | X)           (2)

R is what is present and not in S; the loss is (1) + (2). Unlike the bounds of mixtures it is tight for flexible
posteriors, and unlike those of products it trains any subset's: made for learned fusions (`SumPooling`,
`SelfAttention`). Each modality is in S with probability one half. Private codes (ours) add
beta beta_private sum_m KL(q(w_m | x_m) || N(0, I)). Source: arXiv:2309.00380, equations 5 and 6.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import Fusion, SelfAttention
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Terms
from mmgen_jax.vae.schedules import at


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedBound(Bound):
    """Equations (1) and (2), for a fusion whose posterior is one Gaussian."""

    fusion: Fusion = SelfAttention()
    beta_private: float = 1.0

    def noise(self, key: Key, inference: Inference) -> Noise:
        """Codes for S and for all; `choice` [M, B] says which modalities S has."""
        return Noise.draw(key, inference, (2,), len(inference.names))

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        half = -jnp.log(jnp.log(2.0))  # the median of Gumbel noise
        subset = inference.present & (noise.choice > half)
        q = inference.joint.stratum(jnp.zeros(subset.shape[1]))
        q_subset = networks.fuse(inference, subset).stratum(jnp.zeros(subset.shape[1]))
        z = jnp.stack([q_subset.at(noise.z[0]), q.at(noise.z[1])])
        both = -networks.log_probs(z, inference.private_at(noise))  # [M, 2, B]
        nll = jnp.where(subset, both[:, 0], both[:, 1])
        kl_subset, kl_rest = self.kl(q_subset, None, noise.z[0]), self.kl(q, q_subset, noise.z[1])
        kl_private = self.private_kl(inference, {name: w[0] for name, w in noise.private.items()})
        kl = kl_subset + kl_rest + self.beta_private * kl_private.sum(0)
        loss = networks.weighted(nll) + at(self.beta, step) * kl
        return loss, {"nll": nll, "kl": kl_subset, "kl_rest": kl_rest, "kl_private": kl_private}
