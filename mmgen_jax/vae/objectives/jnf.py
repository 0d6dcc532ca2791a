"""JNF: a joint VAE first, then a normalising flow for each expert (Senellart et al. 2023, arXiv:2305.11832).

    first     sum_m -log p(x_m | z) + beta KL(q || N(0, I)),      z ~ q(z | X)                (1)
    then      sum_m -log q_m(z),  q_m(z) = N(f_m(z); mean_m, var_m) |det df_m/dz|             (2)
    subsets   q(z | x_S) ~ prod_{m in S} q_m(z) / N(z; 0, I)^(|S| - 1)                        (3)

In (2) the joint encoder and the decoders stay as (1) left them; f_m is a masked autoregressive flow. (3) has no density
that could be drawn from: it is sampled by Hamiltonian Monte Carlo (Neal 2011, arXiv:1206.1901) from a draw of one
expert. Private codes (ours) add beta beta_private KL(q(w_m | x_m) || N(0, I)) to (1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.nn.flow import MaskedFlow
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.fusion import Evidence, Fusion, JointEncoder, uniform
from mmgen_jax.vae.latent import Gaussian, Inference, Noise
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Bound, Sizes, Terms
from mmgen_jax.vae.schedules import at

CHAIN, LEAPS, LEAP = 30, 10, 0.1  # proposals of a Markov chain, leapfrog steps in each, and their size


@dataclasses.dataclass(frozen=True, kw_only=True)
class JNF(Bound):
    """Equation (1) for the first `first_stage` steps, then (2).

    blocks, layers, hidden: of the flows, see `nn.flow.MaskedFlow`.
    """

    fusion: Fusion = JointEncoder()
    first_stage: int = 1000
    blocks: int = 2
    layers: int = 1
    hidden: int = 128
    beta_private: float = 1.0

    @property
    def frozen(self) -> Mapping[str, int]:
        return {"fusion": self.first_stage, "decoders": self.first_stage}

    def init(self, key: Key, sizes: Sizes) -> Params:
        keys = jnp.stack([fold_name(key, name) for name in sizes.modalities])
        return {"flows": jax.vmap(self._flow(sizes.latent).init)(keys)}

    def __call__(
        self, params: Params, inference: Inference, networks: Networks, noise: Noise, step: Array
    ) -> tuple[Array, Terms]:
        q = inference.joint.choose(noise.choice)
        z, nothing = q.at(noise.z), jnp.zeros(inference.present.shape)

        def first() -> tuple[Array, Terms]:
            nll, kl = -networks.log_probs(z, inference.private_at(noise)), self.kl(q, None, noise.z)
            kl_private = self.private_kl(inference, noise.private)
            loss = networks.weighted(nll) + at(self.beta, step) * (kl + self.beta_private * kl_private.sum(0))
            return loss, {"nll": nll, "kl": kl, "nll_code": nothing}

        def then() -> tuple[Array, Terms]:
            flows = Flows(self._flow(z.shape[-1]), params["flows"], inference.experts)
            nll = jnp.where(inference.present, -flows.log_prob(jax.lax.stop_gradient(z)), 0)
            return nll.sum(0), {"nll": nothing, "kl": nothing[0], "nll_code": nll}

        return jax.lax.cond(step < self.first_stage, first, then)

    def conditional(self, params: Params, fusion: Params, evidence: Evidence) -> FlowProduct:
        joint = self.fusion.joint(fusion, evidence).stratum(jnp.zeros(evidence.present.shape[1]))
        flow = self._flow(evidence.experts.mean.shape[-1])
        return FlowProduct(Flows(flow, params["flows"], evidence.experts), evidence.present, joint)

    def proposal(self, params: Params, fusion: Params, evidence: Evidence) -> FlowMixture:
        """The joint posterior where everything is present, else the mixture of the q_m of what is."""
        product = self.conditional(params, fusion, evidence)
        every = evidence.present.all(0)
        weights = jnp.where(every, 0, uniform(evidence.present, evidence.experts.mean.dtype))
        return FlowMixture(product.flows, jnp.concatenate([weights, every[None]]), product.joint)

    def _flow(self, latent: int) -> MaskedFlow:
        return MaskedFlow(dim=latent, hidden=self.hidden, layers=self.layers, blocks=self.blocks)


@flax.struct.dataclass
class Flows:
    """The q_m of equation (2)."""

    flow: MaskedFlow = flax.struct.field(pytree_node=False)
    params: Params  # leaves [M, ...]
    experts: Gaussian  # [M, B, D]

    def log_prob(self, z: Array) -> Array:
        """log q_m(z) in nats, [M, ..., B], at codes z [..., B, D]."""

        def one(params: Params, expert: Gaussian) -> Array:
            u, log_det = self.flow.forward(params, z)
            return expert.log_prob(u) + log_det

        return jax.vmap(one)(self.params, self.experts)

    def at(self, noise: Array) -> Array:
        """The samples [M, ..., B, D] that standard normal noise [..., B, D] leads to."""
        return jax.vmap(lambda params, expert: self.flow.inverse(params, expert.at(noise))[0])(
            self.params, self.experts
        )


@flax.struct.dataclass
class FlowProduct:
    """Equation (3) for what is present [M, B]; the joint posterior [B, D] where that is everything."""

    flows: Flows
    present: Array
    joint: Gaussian

    @property
    def mean(self) -> Array:
        """[B, D]: the joint mean, the image of one expert's mean, or, where (3) has no such thing, their average."""
        images = self.flows.at(jnp.zeros_like(self.joint.mean))
        average = (images * uniform(self.present, images.dtype)[..., None]).sum(0)
        return jnp.where(self.present.all(0)[:, None], self.joint.mean, average)

    @property
    def variance(self) -> Array:
        """[B, D]: that of the joint posterior, and 0 where no closed form is known."""
        return jnp.where(self.present.all(0)[:, None], self.joint.variance, 0)

    def log_density(self, z: Array) -> Array:
        """Equation (3) up to a constant, in nats, [B], at codes [B, D]."""
        each = jnp.where(self.present, self.flows.log_prob(z), 0).sum(0)
        return each - (self.present.sum(0) - 1) * Gaussian.standard(z).log_prob(z)

    def sample(self, key: Key) -> Array:
        """[B, D], after `CHAIN` proposals of Hamiltonian Monte Carlo."""
        start, which, chain = jax.random.split(key, 3)
        noise = jax.random.normal(start, self.joint.mean.shape, self.joint.mean.dtype)
        scores = jnp.where(self.present, jax.random.gumbel(which, self.present.shape), -jnp.inf)
        chosen = jnp.argmax(scores, axis=0)[None, :, None]
        z = jnp.take_along_axis(self.flows.at(noise), chosen, axis=0)[0]
        # A draw of one expert is exact where that is all there is: chains only where several, and not all, are given.
        several = (self.present.sum(0) > 1) & ~self.present.all(0)
        z = jax.lax.cond(several.any(), lambda z: hamiltonian(self.log_density, z, chain), lambda z: z, z)
        return jnp.where(self.present.all(0)[:, None], self.joint.at(noise), z)


@flax.struct.dataclass
class FlowMixture:
    """sum_m weights_m q_m, the joint posterior being the last of the components: weights [M + 1, B]."""

    flows: Flows
    weights: Array
    joint: Gaussian

    def log_prob(self, z: Array) -> Array:
        """The log density [..., B] at z [..., B, D]."""
        each = jnp.concatenate([self.flows.log_prob(z), self.joint.log_prob(z)[None]])
        weights = self.weights.reshape(len(each), *(1,) * (z.ndim - 2), -1)
        return jax.nn.logsumexp(each, axis=0, b=jnp.broadcast_to(weights, each.shape))

    def stratum(self, u: Array) -> FlowMixture:
        """The component in which the quantile u [B] of the weights lies: a mixture with one weight of 1."""
        chosen = (jnp.cumsum(self.weights, axis=0) <= u[None]).sum(0).clip(max=len(self.weights) - 1)
        return self.replace(weights=jax.nn.one_hot(chosen, len(self.weights), axis=0, dtype=u.dtype))

    def at(self, noise: Array) -> Array:
        """The samples [..., B, D] of the heaviest component that standard normal noise [..., B, D] leads to."""
        each = jnp.concatenate([self.flows.at(noise), self.joint.at(noise)[None]])
        chosen = jnp.argmax(self.weights, axis=0).reshape((1,) * (noise.ndim - 1) + (-1, 1))
        return jnp.take_along_axis(each, chosen, axis=0)[0]


def hamiltonian(log_density: Callable[[Array], Array], z: Array, key: Key) -> Array:
    """The end of Markov chains [B, D] that leave a density [B] known up to a constant as it is (Neal 2011)."""
    slope = jax.grad(lambda z: log_density(z).sum())

    def propose(z: Array, key: Key) -> tuple[Array, None]:
        kick, accept = jax.random.split(key)
        start = jax.random.normal(kick, z.shape, z.dtype)

        def leap(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            z, momentum = carry
            momentum = momentum + 0.5 * LEAP * slope(z)
            z = z + LEAP * momentum
            return z, momentum + 0.5 * LEAP * slope(z)

        there, momentum = jax.lax.fori_loop(0, LEAPS, leap, (z, start))
        energy = log_density(there) - log_density(z) - 0.5 * (momentum**2 - start**2).sum(-1)
        taken = jnp.log(jax.random.uniform(accept, energy.shape)) < energy  # an energy of nan is refused
        return jnp.where(taken[:, None], there, z), None

    return jax.lax.scan(propose, z, jax.random.split(key, CHAIN))[0]
