"""Importance-weighted bounds for a mixture of experts, with K samples from each, and their gradient estimators.

    lw_mk = sum_j log p(x_j | u_mk, w_mkj) + beta [log p(u_mk, w_mkm) - log 1/n sum_j q_j(u_mk) - log q_m(w_mkm)]    (1)

    looser    1/n sum_m log 1/K sum_k exp(lw_mk)     (2)        tight    log 1/(nK) sum_mk exp(lw_mk)                (3)

u_mk ~ q_m, n counts the modalities that are present, and only those take part. Private codes: w_mkm ~ q(w | x_m), and
for j not m, w_mkj ~ r_j, a learned distribution that knows nothing of x_j: what crosses over must go through u.

Estimators of the gradient: `iwae` differentiates (2) or (3) as they stand. `sticking` holds the parameters of q inside
(1) constant (Roeder et al. 2017, arXiv:1703.09194). `dreg` does so too and weighs what reaches a sample by its
normalised importance once more (Tucker et al. 2019, arXiv:1810.04152): decoders and priors get weight w, encoders w^2.
Sources: Burda et al. 2016 (arXiv:1509.00519); (2), (3) Shi et al. 2019 (arXiv:1911.03393), appendix of the former.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import MixtureOfExperts
from mmgen_jax.vae.latent import Distribution, Family, Inference, Mixture, Noise, distribution
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Objective, Prior, Terms
from mmgen_jax.vae.schedules import Schedule, at

LOW = -1e30  # the log of a weight that does not count: finite, so that no gradient is nan


@flax.struct.dataclass
class Codes:
    """Samples of all experts: u [M, K, B, D], and of each private posterior [K, B, D_m]."""

    u: Array
    own: dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceBound(Objective):
    """Equations (1) to (3).

    samples: K, from each expert.
    estimator: of the gradient, see above.
    tight: equation (3) instead of (2).
    beta: factor on what is not a likelihood in (1).
    family: of posteriors and priors.
    """

    fusion = MixtureOfExperts()  # the posterior of (1): not to be chosen
    samples: int = 10
    estimator: Literal["iwae", "sticking", "dreg"] = "dreg"
    tight: bool = False
    beta: Schedule = 1.0
    family: Family = "laplace"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}, but must be at least 1")

    def noise(self, key: Key, inference: Inference) -> Noise:
        """`z` [M, K, B, D]; `private[j]` [M, K, B, D_j], of which row j is for the posterior, the others for r_j."""
        return Noise.draw(key, inference, (len(inference.names), self.samples))

    def prior(self, params: Params, inference: Inference) -> Prior:
        shared = standard(self.family, inference.experts.mean[0])
        private = {name: standard(self.family, q.mean) for name, q in inference.private.items()}
        return Prior(Mixture.single(shared), private)

    def auxiliary(self, params: Params, inference: Inference) -> dict[str, Distribution]:
        """r_j, the private codes for what comes from other modalities, [B, D_j]."""
        return {}

    def codes(self, inference: Inference, noise: Noise) -> Codes:
        """The samples that the noise leads to."""
        u = jax.vmap(lambda expert, noise: expert.at(noise))(inference.experts, noise.z)
        own = {name: q.at(noise.private[name][inference.names.index(name)]) for name, q in inference.private.items()}
        return Codes(u, own)

    def log_weights(
        self, params: Params, inference: Inference, networks: Networks, codes: Codes, noise: Noise, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Equation (1), [M, K, B], and its parts: `log_likelihood` [j, M, K, B], the rest [M, K, B]."""
        names, prior = inference.names, self.prior(params, inference)
        experts = Mixture(inference.experts, inference.joint.weights)
        crossing = self.auxiliary(params, inference)
        private, log_pw, log_qw = {}, jnp.zeros(codes.u.shape[:-1]), jnp.zeros(codes.u.shape[:-1])
        for name, own in codes.own.items():
            m = names.index(name)
            private[name] = crossing[name].at(noise.private[name]).at[m].set(own)
            log_pw = log_pw.at[m].set(prior.private[name].log_prob(own))
            log_qw = log_qw.at[m].set(inference.private[name].log_prob(own))
        parts = {
            "log_likelihood": networks.log_probs(codes.u, private),
            "log_p": prior.shared.log_prob(codes.u) + log_pw,
            "log_q": experts.log_prob(codes.u),
            "log_q_private": log_qw,
        }
        divergence = parts["log_q"] + parts["log_q_private"] - parts["log_p"]
        lw = networks.weighted(parts["log_likelihood"]) - at(self.beta, step) * divergence
        return lw, parts

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        density = inference if self.estimator == "iwae" else jax.lax.stop_gradient(inference)
        some = inference.present.any(0)
        counted = inference.present | ~some[None]
        axes = (0, 1) if self.tight else (1,)

        def log_weights(codes: Codes) -> tuple[Array, dict[str, Array]]:
            lw, parts = self.log_weights(params, density, networks, codes, noise, step)
            return jnp.where(counted[:, None], lw, LOW), parts

        codes = self.codes(inference, noise)
        if self.estimator == "dreg":
            lw, parts = reweighted(log_weights, codes, inference.names, axes)
            bound = (jax.lax.stop_gradient(jax.nn.softmax(lw, axes)) * lw).sum(axes)
        else:
            lw, parts = log_weights(codes)
            bound = jax.nn.logsumexp(lw, axes) - math.log(self.samples)
        n = counted.sum(0)
        if not self.tight:
            bound = jnp.where(counted, bound, 0).sum(0) / n
        elif self.estimator != "dreg":
            bound = bound - jnp.log(n)
        share = (counted / (n * self.samples)[None])[:, None]  # of one sample in a mean
        divergence = parts["log_q"] + parts["log_q_private"] - parts["log_p"]
        terms = {"nll": -(share[None] * parts["log_likelihood"]).sum((1, 2)), "kl": (share * divergence).sum((0, 1))}
        return -jnp.where(some, bound, 0), terms


def standard(family: Family, like: Array) -> Distribution:
    """What the family makes of an output of zero, in the shape of `like`: the prior, and an expert that is missing."""
    return distribution(family, jnp.zeros_like(like), jnp.zeros_like(like))


def reweighted(
    log_weights: Callable[[Codes], tuple[Array, Any]], codes: Codes, names: tuple[str, ...], axes: tuple[int, ...]
) -> tuple[Array, Any]:
    """`log_weights(codes)`, whose gradient to the codes, and to nothing else, is multiplied by softmax(lw, axes)."""
    converted, constants = jax.closure_convert(log_weights, codes)

    @jax.custom_vjp
    def call(codes: Codes, constants: list[Array]) -> tuple[Array, Any]:
        return converted(codes, *constants)

    def forward(codes: Codes, constants: list[Array]) -> tuple[tuple[Array, Any], Any]:
        (lw, parts), pull = jax.vjp(lambda codes, constants: converted(codes, *constants), codes, constants)
        return (lw, parts), (pull, jax.nn.softmax(lw, axes)[..., None])

    def backward(kept: Any, cotangent: Any) -> tuple[Codes, list[Array]]:
        pull, w = kept
        to_codes, to_constants = pull(cotangent)
        own = {name: g * w[names.index(name)] for name, g in to_codes.own.items()}
        return Codes(to_codes.u * w, own), to_constants

    call.defvjp(forward, backward)
    return call(codes, constants)
