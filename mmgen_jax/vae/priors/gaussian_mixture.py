"""A mixture of Gaussians as prior, the one that Ghosh et al. (2020, arXiv:1903.12436) fit: quick, and hard to beat."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.priors import em
from mmgen_jax.vae.priors.scale import from_scale, log_volume, standardised, to_scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianMixturePrior:
    """K Gaussians with full covariances.

    Attributes:
      components: K.
      starts: how often EM is begun anew; the likeliest end is kept, since a start may put two means into one cluster.
      steps: the most steps of EM.
      tol: EM ends when a step gains less mean log-likelihood than this, in nats.
      floor: the least variance in any direction, where a dimension of the codes has 1.

    Raises:
      ValueError: a number is out of range.
    """

    components: int = 10
    starts: int = 4
    steps: int = 200
    tol: float = 1e-4
    floor: float = 1e-4

    def __post_init__(self) -> None:
        for field, least in (("components", 1), ("starts", 1), ("steps", 1), ("tol", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} is {getattr(self, field)}, but must be at least {least}")
        if self.floor <= 0:
            raise ValueError(f"floor is {self.floor}, but must be positive, or a component can collapse")

    @functools.partial(jax.jit, static_argnums=0)
    def fit(self, key: Key, codes: Array) -> Params:
        """EM on the codes [N, D]. Raises ValueError for another shape, or fewer codes than components."""
        scale, x = standardised(codes)
        if len(x) < self.components:
            raise ValueError(f"{len(x)} codes are too few for {self.components} components")

        def go_on(carry: tuple[Array, Params, Array, Array]) -> Array:
            i, _, _, gain = carry
            return (i < self.steps) & (gain >= self.tol)

        def body(carry: tuple[Array, Params, Array, Array]) -> tuple[Array, Params, Array, Array]:
            i, mixture, before, _ = carry
            mixture, now = em.step(mixture, x, self.floor)
            return i + 1, mixture, now, now - before

        def one(key: Key) -> tuple[Array, Params]:
            infinite = jnp.array(jnp.inf, x.dtype)
            begin = jnp.zeros((), jnp.int32), em.start(key, x, self.components, self.floor), -infinite, infinite
            _, mixture, likelihood, _ = lax.while_loop(go_on, body, begin)
            return likelihood, mixture

        likelihoods, mixtures = lax.map(one, jax.random.split(key, self.starts))
        best = jnp.argmax(likelihoods)
        return {"scale": scale, "mixture": jax.tree.map(lambda y: y[best], mixtures)}

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def sample(self, params: Params, key: Key, n: int) -> Array:
        """n codes [n, D]."""
        return from_scale(params["scale"], em.draw(params["mixture"], key, n))

    @functools.partial(jax.jit, static_argnums=0)
    def log_prob(self, params: Params, z: Array) -> Array:
        """The log density [...] at z [..., D], in nats."""
        joint = em.log_joint(params["mixture"], to_scale(params["scale"], z))
        return jax.nn.logsumexp(joint, axis=0) - log_volume(params["scale"])
