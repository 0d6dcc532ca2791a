"""What all objectives have in common: the hooks a VAE calls, and the KL term.

An objective is a frozen dataclass of its hyper-parameters. It returns one number per example, [B]; the mean over the
batch is taken in `train/step.py`, for every objective alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key, Modality, Params
from mmgen_jax.vae.fusion import Evidence, Fusion
from mmgen_jax.vae.latent import Distribution, Family, Gaussian, Inference, Mixture, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.schedules import Schedule

Terms = Mapping[str, Array]  # unweighted parts of a loss, [B], or [M, B] per modality


@flax.struct.dataclass
class Prior:
    """p(z) and p(w_m) for a batch."""

    shared: Mixture  # [S, B, D]
    private: dict[str, Distribution]  # [B, D_m]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What an objective with parameters of its own must know of the model."""

    modalities: Mapping[str, Modality]
    latent: int
    private: Mapping[str, int]


class Objective:
    """What a VAE minimises. The defaults here are those of a model with the prior N(0, I) and nothing else to learn."""

    fusion: Fusion
    family: Family = "normal"  # of the posteriors and the prior
    # Groups of parameters that stay as they are from a step on; {} for most objectives.
    frozen: Mapping[str, int] = {}

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        """The loss [B] in nats, and its unweighted terms; `params` are this objective's own, `step` for schedules."""
        raise NotImplementedError

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError where this objective cannot do with these modalities and codes."""

    def init(self, key: Key, sizes: Sizes) -> Params:
        """Parameters of the objective itself: learned priors, flows."""
        return {}

    def noise(self, key: Key, inference: Inference) -> Noise:
        """The random numbers of one loss."""
        return Noise.draw(key, inference)

    def prior(self, params: Params, inference: Inference) -> Prior:
        """What codes are drawn from when nothing is given."""
        shared = Gaussian.standard(inference.experts.mean[0])
        private = {name: Gaussian.standard(q.mean) for name, q in inference.private.items()}
        return Prior(Mixture.single(shared), private)

    def conditional(self, params: Params, fusion: Params, evidence: Evidence) -> Mixture:
        """What the shared code is drawn from given what is present (something)."""
        return self.fusion.conditional(fusion, evidence)

    def proposal(self, params: Params, fusion: Params, evidence: Evidence) -> Mixture:
        """The posterior by which the likelihood is estimated: one whose density is known."""
        return self.conditional(params, fusion, evidence)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound(Objective):
    """An objective whose KL terms are known in closed form.

    beta: factor on all KL terms (Higgins et al. 2017); a `Ramp` for KL warm-up.
    free_bits: nats that each number of a code may cost for nothing, see `Gaussian.kl`.
    sticking: estimate KLs at the sample with the posterior's parameters held constant, the "sticking the landing"
        gradient (Roeder et al. 2017, arXiv:1703.09194): no noise where the posterior is exact.
    """

    beta: Schedule = 1.0
    free_bits: float = 0.0
    sticking: bool = False

    def __post_init__(self) -> None:
        if self.free_bits < 0:
            raise ValueError(f"free_bits is {self.free_bits}, but must not be negative")
        if self.free_bits and self.sticking:
            raise ValueError("free_bits needs the KL itself and sticking estimates it at a sample: choose one of them")

    def kl(self, q: Gaussian, p: Gaussian | None, noise: Array) -> Array:
        """KL(q || p) in nats, [...]; `p` None is N(0, I). `noise` is what z ~ q was drawn with."""
        if self.sticking:
            z, p = q.at(noise), Gaussian.standard(q.mean) if p is None else p
            return jax.lax.stop_gradient(q).log_prob(z) - p.log_prob(z)
        return q.kl(p, free_bits=self.free_bits)

    def private_kl(self, inference: Inference, noise: Mapping[str, Array]) -> Array:
        """KL(q(w_m | x_m) || N(0, I)) of each modality, [M, B], `noise` [B, D_m]; zero where there is no such code."""
        nothing = jnp.zeros(inference.present.shape[1], inference.experts.mean.dtype)
        rows = [
            self.kl(inference.private[name], None, noise[name]) if name in inference.private else nothing
            for name in inference.names
        ]
        return jnp.where(inference.present, jnp.stack(rows), 0)

    def kl_to_experts(self, q: Gaussian, inference: Inference, noise: Array) -> Array:
        """KL(q || q_m) for q [B, D] and each expert that is present, [M, B]; zero for the others."""
        rows = jax.vmap(lambda expert: self.kl(q, expert, noise))(inference.experts)
        return jnp.where(inference.present, rows, 0)


def check_names(field: str, mapping: Mapping[str, object], sizes: Sizes) -> None:
    """Raise ValueError where a mapping by modality has another name in it."""
    for name in mapping:
        if name not in sizes.modalities:
            raise ValueError(f"{field} names {name!r}, but the modalities are {list(sizes.modalities)}")
