"""A path whose noise level is learned with the network (VDM, Kingma et al. 2021, arXiv:2107.00630).

    gamma = -log(alpha^2 / sigma^2),  alpha^2 = sigmoid(-gamma),  sigma^2 = sigmoid(gamma)      (1)
    gamma(t) = low + softplus(width) (f(t) - f(0)) / (f(1) - f(0))                              (2)
    f(t) = t + sum_k softplus(a_k) sigmoid(exp(b_k) (t - c_k))                                  (3)
    d E[L^2] / d gamma = E[2 L dL / d gamma]                                                    (4)

f rises strictly whatever its parameters are. The loss L of an example, with the weight `ELBO` of `weights.py` and at
uniform times, has an expectation that depends on the ends of gamma alone. So what is in between is learned by (4),
which lowers the variance of L; the ends stay as they are, since no term of that loss would hold them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.diffusion.paths import Coefficients, Plain, Prediction, differentiated
from mmgen_jax.types import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class VDM:
    """Hyper-parameters of a path that is learned, equations (1) to (3); `at` makes the path of its parameters.

    low, high: gamma at t = 0 and t = 1. units: how many terms f has.

    Raises:
        ValueError: `high` is not above `low`, or there is no term.
    """

    low: float = -13.3
    high: float = 5.0
    units: int = 16
    prediction: ClassVar[Prediction] = "noise"

    def __post_init__(self) -> None:
        if self.high <= self.low:
            raise ValueError(f"VDM: high is {self.high}, but must be above low = {self.low}")
        if self.units < 1:
            raise ValueError(f"VDM: units is {self.units}, but must be at least 1")

    def init(self, dtype: Any = float) -> Params:
        """The parameters of a gamma that is nearly a straight line."""
        width = self.high - self.low + np.log(-np.expm1(self.low - self.high))  # the inverse of softplus
        shape = {"a": np.full(self.units, -3.0), "b": np.full(self.units, 2.0), "c": np.linspace(0, 1, self.units)}
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), {"low": self.low, "width": width, **shape})

    def at(self, params: Params, pace: Array | None = None) -> LearnedPath:
        """The path, whose ends have no gradient. pace: see `LearnedPath`."""
        still = {end: jax.lax.stop_gradient(params[end]) for end in ("low", "width")}
        return LearnedPath({**params, **still}, pace)


@flax.struct.dataclass
class LearnedPath(Plain):
    """Equations (1) to (3), differentiable with respect to its parameters; a pytree, so that it passes through jit.

    pace: [B], what the gradient of each example's coefficients is multiplied by, 2 L for (4); None: 1.
    """

    params: Params
    pace: Array | None = None
    prediction: Prediction = flax.struct.field(pytree_node=False, default="noise")

    def _rise(self, t: Array) -> Array:
        a, b, c = (self.params[k].reshape((1,) * t.ndim + (-1,)) for k in "abc")
        return t + (jax.nn.softplus(a) * jax.nn.sigmoid(jnp.exp(b) * (t[..., None] - c))).sum(-1)

    def gamma(self, t: Array) -> Array:
        """-log(alpha^2 / sigma^2) at times of any shape; rises strictly."""
        start, stop = (self._rise(jnp.full((), end, t.dtype)) for end in (0, 1))
        return self.params["low"] + jax.nn.softplus(self.params["width"]) * (self._rise(t) - start) / (stop - start)

    def coefficients(self, t: Array) -> Coefficients:
        """Of times of any shape in [0, 1], [B, ...] if there is a pace."""

        def values(t: Array) -> tuple[Array, Array]:
            gamma = self.gamma(t)
            return jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))

        c = differentiated(values, jnp.asarray(t))
        if self.pace is None:
            return c
        pace = self.pace.reshape(-1, *(1,) * (c.alpha.ndim - 1))
        return jax.tree.map(lambda x: jax.lax.stop_gradient(x) + pace * (x - jax.lax.stop_gradient(x)), c)
