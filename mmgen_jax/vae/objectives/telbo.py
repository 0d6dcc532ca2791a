"""TELBO: a joint VAE first, then its experts, one by one (Vedantam et al., ICLR 2018, arXiv:1705.10762).

    first     sum_m -lambda_m log p(x_m | z) + beta KL(q || N(0, I)),       z ~ q(z | X)      (1)
    then      sum_m [-gamma_m log p(x_m | z_m) + beta KL(q_m || N(0, I))],  z_m ~ q_m         (2)

lambda_m are the model's weights. In (2) the joint encoder and the decoders stay as (1) left them. Private codes (ours)
add beta beta_private KL(q(w_m | x_m) || N(0, I)) to (1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import Fusion, JointEncoder
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Sizes, Terms, check_names
from mmgen_jax.vae.schedules import at


@dataclasses.dataclass(frozen=True, kw_only=True)
class TELBO(Bound):
    """Equation (1) for the first `first_stage` steps, then (2). gammas: gamma_m by name, by default the weights."""

    fusion: Fusion = JointEncoder()
    first_stage: int = 1000
    gammas: Mapping[str, float] = FrozenDict()
    beta_private: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gammas", FrozenDict(self.gammas))

    @property
    def frozen(self) -> Mapping[str, int]:
        return {"fusion": self.first_stage, "decoders": self.first_stage}

    def check(self, sizes: Sizes) -> None:
        check_names("gammas", self.gammas, sizes)

    def noise(self, key: Key, inference: Inference) -> Noise:
        """One code for each modality; the joint posterior takes the first."""
        return Noise.draw(key, inference, (len(inference.names),))

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        beta, alone = at(self.beta, step), jax.tree.map(lambda w: w[0], noise.private)

        def first() -> tuple[Array, Terms]:
            q, private = inference.joint.choose(noise.choice), {m: q.at(alone[m]) for m, q in inference.private.items()}
            nll, kl = -networks.log_probs(q.at(noise.z[0]), private), self.kl(q, None, noise.z[0])
            kl_private = self.private_kl(inference, alone)
            loss = networks.weighted(nll) + beta * (kl + self.beta_private * kl_private.sum(0))
            return loss, {"nll": nll, "kl": jnp.where(inference.present, kl, 0)}

        def then() -> tuple[Array, Terms]:
            private = jax.lax.stop_gradient({m: q.at(alone[m]) for m, q in inference.private.items()})
            nll = -networks.frozen().own(inference.experts.at(noise.z), private)
            kl = jnp.where(inference.present, self.kl(inference.experts, None, noise.z), 0)
            gammas = [self.gammas.get(m, w) for m, w in zip(inference.names, networks.weights, strict=True)]
            return jnp.tensordot(jnp.stack(gammas), nll, axes=1) + beta * kl.sum(0), {"nll": nll, "kl": kl}

        return jax.lax.cond(step < self.first_stage, first, then)
