"""MVAE: a product of experts, trained on sub-sampled sets of modalities (Wu & Goodman, NeurIPS 2018, arXiv:1802.05335).

    sum_S [sum_{m in S} -log p(x_m | z_S) + beta KL(q_S || N(0, I))],      z_S ~ q_S      (1)

q_S is the product of the experts of S and N(0, I). S runs over the set of all modalities, each modality alone, and
`subsets` random sets in between, drawn anew for every step. An example that has nothing of S adds nothing to its bound.
Private codes (ours) add beta_private KL(q(w_m | x_m) || N(0, I)) for each modality of S, like its likelihood.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import ProductOfExperts, membership, product, subsets_of
from mmgen_jax.vae.latent import Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Terms
from mmgen_jax.vae.schedules import at


@dataclasses.dataclass(frozen=True, kw_only=True)
class MVAE(Bound):
    """Equation (1).

    singles: whether each modality alone has a bound of its own.
    subsets: how many random sets of 2 to M - 1 modalities have one.
    mean_of_rows: divide the bound of S by the share of examples that have something of S, as published, which makes
        the loss of an example depend on its batch.
    """

    fusion = ProductOfExperts(prior=True, eps=0.0)  # q_S of (1): not to be chosen
    beta_private: float = 1.0
    singles: bool = True
    subsets: int = 0
    mean_of_rows: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subsets < 0:
            raise ValueError(f"subsets is {self.subsets}, but must not be negative")

    def noise(self, key: Key, inference: Inference) -> Noise:
        """Codes for every set of equation (1) in its order; which sets are drawn is the same for all examples."""
        sets = 1 + self.singles * len(inference.names) + len(self._ranks(inference.names))
        noise = Noise.draw(key, inference, (sets,), max(1, len(self._between(inference.names))))
        return noise.replace(choice=noise.choice[:, :1])

    def sets(self, names: tuple[str, ...], choice: Array) -> Array:
        """bool [S, M]: all modalities, each alone, and those sets in between with the largest `choice` [sets, 1]."""
        between = membership(self._between(names), names)
        drawn = jax.lax.top_k(choice[: len(between), 0], len(self._ranks(names)))[1]
        alone = jnp.eye(len(names), dtype=bool)[: len(names) * self.singles]
        return jnp.concatenate([jnp.ones((1, len(names)), bool), alone, between[drawn]])

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        names, asked = inference.names, self._asked(inference.names)
        used = self.sets(names, noise.choice)[..., None] & inference.present[None]  # [S, M, B]
        weight = used.any(axis=1).astype(inference.experts.mean.dtype)  # 1 for examples that have something of S
        if self.mean_of_rows:
            weight = weight / jnp.maximum(weight.mean(1, keepdims=True), 1 / weight.shape[1])
        q = product(inference.experts, used, prior=True)
        private = {
            name: code.at(noise.private[name][asked[names.index(name)]]) for name, code in inference.private.items()
        }
        nll = -networks.own(q.at(noise.z)[asked], private)  # [M, sets asked, B]
        nll = nll * weight[asked] * used[asked, np.arange(len(names))[:, None]]
        kl = weight * self.kl(q, None, noise.z)
        kl_private = (weight[:, None] * used).sum(0) * self.private_kl(
            inference, jax.tree.map(lambda w: w[0], noise.private)
        )
        kls = kl.sum(0) + self.beta_private * kl_private.sum(0)
        loss = networks.weighted(nll.sum(1)) + at(self.beta, step) * kls
        return loss, {"nll": nll.sum(1), "kl": kl.sum(0), "kl_private": kl_private}

    def _between(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        return subsets_of(names, range(2, len(names)))

    def _ranks(self, names: tuple[str, ...]) -> range:
        """One entry for each set that is drawn; there are no more than there are sets in between."""
        return range(min(self.subsets, len(self._between(names))))

    def _asked(self, names: tuple[str, ...]) -> np.ndarray:
        """int [M, .]: the sets that may have m in them; its decoder is asked about no others, for half of the work."""
        alone = [[1 + m] * self.singles for m in range(len(names))]
        first = 1 + len(names) * self.singles
        return np.array([[0, *own, *(first + rank for rank in self._ranks(names))] for own in alone])
