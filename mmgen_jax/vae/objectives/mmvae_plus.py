"""MMVAE+: private codes that cannot serve as a short cut (Palumbo et al., ICLR 2023, openreview sdQGxouELX).

Equations (1) to (3) of `importance.py`. A modality is decoded from its own private code only where the shared code
comes from itself; elsewhere from a draw of r_j, whose scales are learned, so that the shared code alone must carry what
is common. Generation draws the private codes of what was not given from the prior, for which the decoders are as sharp
as for a posterior.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.latent import Distribution, Family, Inference, Mixture, distribution
from mmgen_jax.vae.objectives.base import Prior, Sizes
from mmgen_jax.vae.objectives.importance import ImportanceBound


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMVAEPlus(ImportanceBound):
    """As published: every modality needs a private code.

    learn_prior: whether the scales of p(u, w) are learned, those of w for all modalities alike.
    learn_auxiliary: whether the scales of r_j are.
    """

    learn_prior: bool = False
    learn_auxiliary: bool = True

    def check(self, sizes: Sizes) -> None:
        check_private(self, sizes)
        if self.learn_prior and len(set(sizes.private.values())) > 1:
            raise ValueError(f"private is {dict(sizes.private)}, but with learn_prior all sizes must be equal")

    def init(self, key: Key, sizes: Sizes) -> Params:
        params = {}
        if self.learn_auxiliary:
            params["auxiliary"] = {name: jnp.zeros(size) for name, size in sizes.private.items()}
        if self.learn_prior:
            params["prior"] = jnp.zeros(sizes.latent + max(sizes.private.values()))
        return params

    def prior(self, params: Params, inference: Inference) -> Prior:
        if not self.learn_prior:
            return super().prior(params, inference)
        latent = inference.experts.mean.shape[-1]
        raw = jnp.broadcast_to(params["prior"], (inference.present.shape[1], len(params["prior"])))
        both = distribution(self.family, jnp.zeros_like(raw), raw)  # one distribution of u and w side by side
        u, w = (jax.tree.map(lambda x, part=part: x[:, part], both) for part in (np.s_[:latent], np.s_[latent:]))
        return Prior(Mixture.single(u), dict.fromkeys(inference.private, w))

    def auxiliary(self, params: Params, inference: Inference) -> dict[str, Distribution]:
        return auxiliary(self.family, params.get("auxiliary", {}), inference)


def check_private(objective: ImportanceBound, sizes: Sizes) -> None:
    """Raise ValueError where a modality has no private code."""
    without = [name for name in sizes.modalities if name not in sizes.private]
    if without:
        raise ValueError(
            f"private has no size for {without}, but {type(objective).__name__} needs one for every modality"
        )


def auxiliary(family: Family, scales: Mapping[str, Array], inference: Inference) -> dict[str, Distribution]:
    """r_j in the shape of the private posteriors, with learned raw scales [D_j] where there are any."""
    zeros = {name: jnp.zeros_like(q.mean) for name, q in inference.private.items()}
    return {name: distribution(family, zero, zero + scales.get(name, zero[0])[None]) for name, zero in zeros.items()}
