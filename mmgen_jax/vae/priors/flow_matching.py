"""A rectified flow as prior (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003).

    x_t = (1 - t) x + t e,    e ~ N(0, I),  t ~ U(0, 1)                          (1)
    loss = |v(x_t, t) - (e - x)|^2                                               (2)
    dx/dt = v(x, t)         from x_1 ~ N(0, I) back to t = 0: a sample           (3)
    log p(x_0) = log N(x_1; 0, I) + int_0^1 div v(x_t, t) dt    along (3)        (4)

t = 0 is data, t = 1 noise. Both integrals are taken with Heun's method. The divergence is exact, so (4) costs D
derivatives where (3) costs one evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.nn.mlp import MLP
from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.latent import Gaussian
from mmgen_jax.vae.priors.scale import from_scale, log_volume, standardised, to_scale
from mmgen_jax.vae.priors.training import Training

WAVES = 8  # numbers that tell the network the time: cos(pi k t), k = 1, ..., WAVES


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchingPrior:
    """A velocity v, given by a multilayer perceptron of the code and the time.

    Attributes:
      hidden: widths of its hidden layers.
      steps: of integration, each two evaluations of v.
      training: how it is trained.

    Raises:
      ValueError: there is no step.
    """

    hidden: tuple[int, ...] = (256, 256, 256)
    steps: int = 50
    training: Training = Training()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, but must be at least 1")

    @functools.partial(jax.jit, static_argnums=0)
    def fit(self, key: Key, codes: Array) -> Params:
        """The velocity that minimises (2) over the codes [N, D]. Raises ValueError for another shape."""
        scale, x = standardised(codes)
        init_key, train_key = jax.random.split(key)

        def loss(params: Params, key: Key, x: Array) -> Array:
            time_key, noise_key = jax.random.split(key)
            t = jax.random.uniform(time_key, (len(x), 1), x.dtype)
            noise = jax.random.normal(noise_key, x.shape, x.dtype)
            velocity = jax.vmap(functools.partial(self._velocity, params))((1 - t) * x + t * noise, t[:, 0])
            return jnp.square(velocity - (noise - x)).sum(-1)

        start = self._network(x.shape[1]).init(init_key, jnp.zeros((1, x.shape[1] + WAVES)))["params"]
        return {"scale": scale, "velocity": self.training.minimise(loss, start, train_key, x)}

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def sample(self, params: Params, key: Key, n: int) -> Array:
        """n codes [n, D], by equation (3)."""
        velocity = functools.partial(self._velocity, params["velocity"])
        mean = params["scale"]["mean"]
        noise = jax.random.normal(key, (n, mean.size), mean.dtype)
        return from_scale(params["scale"], jax.vmap(lambda x: heun(velocity, x, 1.0, 0.0, self.steps))(noise))

    @functools.partial(jax.jit, static_argnums=0)
    def log_prob(self, params: Params, z: Array) -> Array:
        """The log density [...] at z [..., D] by equation (4), in nats, as exact as the integration is."""
        velocity = functools.partial(self._velocity, params["velocity"])

        def change(state: tuple[Array, Array], t: Array) -> tuple[Array, Array]:
            return value_and_divergence(lambda x: velocity(x, t), state[0])

        def one(x: Array) -> Array:
            x, log_det = heun(change, (x, jnp.zeros((), x.dtype)), 0.0, 1.0, self.steps)
            return Gaussian.standard(x).log_prob(x) + log_det

        x = to_scale(params["scale"], z)
        return jnp.vectorize(one, signature="(d)->()")(x) - log_volume(params["scale"])

    def _network(self, dim: int) -> MLP:
        return MLP(dim, self.hidden)

    def _velocity(self, params: Params, x: Array, t: Array) -> Array:
        """v [D] of one code [D] at a time []."""
        time = jnp.cos(jnp.pi * t * jnp.arange(1, WAVES + 1))
        return self._network(x.size).apply({"params": params}, jnp.concatenate([x, time])[None])[0]


def value_and_divergence(field: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """field(x) [D], and sum_d of the derivative of its component d along x_d, one d after the other to save memory."""
    value, derivative = jax.linearize(field, x)
    return value, lax.map(lambda direction: direction @ derivative(direction), jnp.eye(x.size, dtype=x.dtype)).sum()


def heun(field: Callable[[Any, Array], Any], x: Any, start: float, end: float, steps: int) -> Any:
    """The solution at `end` of dx/dt = field(x, t), a tree like x, that is x at `start`."""
    length = (end - start) / steps

    def moved(x: Any, by: Any) -> Any:
        return jax.tree.map(lambda a, b: a + length * b, x, by)

    def step(x: Any, i: Array) -> tuple[Any, None]:
        t = start + length * i
        first = field(x, t)
        second = field(moved(x, first), t + length)
        return moved(x, jax.tree.map(lambda a, b: (a + b) / 2, first, second)), None

    return lax.scan(step, x, jnp.arange(steps, dtype=jnp.float32))[0]
