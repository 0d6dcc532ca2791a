"""A masked autoregressive flow as prior: log p(z) = log N(f(z); 0, I) + log |det df/dz|, maximised over the codes."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mmgen_jax.nn.flow import MaskedFlow
from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.latent import Gaussian
from mmgen_jax.vae.priors.scale import from_scale, log_volume, standardised, to_scale
from mmgen_jax.vae.priors.training import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowPrior:
    """A `MaskedFlow` f from codes to N(0, I).

    Attributes:
      hidden, layers, blocks, bound: of the flow.
      training: how it is trained.
    """

    hidden: int = 128
    layers: int = 2
    blocks: int = 5
    bound: float | None = 2.0
    training: Training = Training()

    @functools.partial(jax.jit, static_argnums=0)
    def fit(self, key: Key, codes: Array) -> Params:
        """The flow that makes the codes [N, D] most probable. Raises ValueError for another shape."""
        scale, x = standardised(codes)
        init_key, train_key = jax.random.split(key)
        flow = self._flow(scale)

        def loss(params: Params, _: Key, x: Array) -> Array:
            return -log_density(flow, params, x)

        return {"scale": scale, "flow": self.training.minimise(loss, flow.init(init_key), train_key, x)}

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def sample(self, params: Params, key: Key, n: int) -> Array:
        """n codes [n, D], in D sequential steps a block."""
        flow = self._flow(params["scale"])
        x, _ = flow.inverse(params["flow"], jax.random.normal(key, (n, flow.dim), jnp.float32))
        return from_scale(params["scale"], x)

    @functools.partial(jax.jit, static_argnums=0)
    def log_prob(self, params: Params, z: Array) -> Array:
        """The log density [...] at z [..., D], in nats."""
        x = to_scale(params["scale"], z)
        return log_density(self._flow(params["scale"]), params["flow"], x) - log_volume(params["scale"])

    def _flow(self, scale: Params) -> MaskedFlow:
        sizes = {"hidden": self.hidden, "layers": self.layers, "blocks": self.blocks}
        return MaskedFlow(dim=scale["mean"].size, **sizes, bound=self.bound)


def log_density(flow: MaskedFlow, params: Params, x: Array) -> Array:
    """log N(f(x); 0, I) + log |det df/dx|, [...] for x [..., D]."""
    u, log_det = flow.forward(params, x)
    return Gaussian.standard(u).log_prob(u) + log_det
