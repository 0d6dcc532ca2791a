"""A path whose noise level is learned with the network (VDM, Kingma et al. 2021, arXiv:2107.00630).

    gamma = -log(alpha^2 / sigma^2),  alpha^2 = sigmoid(-gamma),  sigma^2 = sigmoid(gamma)      (1)
    gamma(t) = low + softplus(width) (f(t) - f(0)) / (f(1) - f(0))                              (2)
    f(t) = t + sum_k softplus(a_k) sigmoid(exp(b_k) (t - c_k))                                  (3)

f rises strictly whatever its parameters are. Trained with the weight `ELBO` of `weights.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.diffusion.paths import Coefficients, Prediction, differentiated
from mmgen_jax.types import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class VDM:
    """Hyper-parameters of a path that is learned, equations (1) to (3); `at` makes the path of its parameters.

    low, high: gamma at t = 0 and t = 1 before training. units: how many terms f has.
    """

    low: float = -13.3
    high: float = 5.0
    units: int = 16

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

    def at(self, params: Params) -> LearnedPath:
        """The path."""
        return LearnedPath(params)


@flax.struct.dataclass
class LearnedPath:
    """Equations (1) to (3), differentiable with respect to its parameters; a pytree, so that it passes through jit."""

    params: Params
    prediction: Prediction = flax.struct.field(pytree_node=False, default="noise")

    def _rise(self, t: Array) -> Array:
        a, b, c = (self.params[k].reshape((1,) * t.ndim + (-1,)) for k in "abc")
        return t + (jax.nn.softplus(a) * jax.nn.sigmoid(jnp.exp(b) * (t[..., None] - c))).sum(-1)

    def gamma(self, t: Array) -> Array:
        """-log(alpha^2 / sigma^2) at times of any shape; rises strictly."""
        start, stop = (self._rise(jnp.full((), end, t.dtype)) for end in (0, 1))
        return self.params["low"] + jax.nn.softplus(self.params["width"]) * (self._rise(t) - start) / (stop - start)

    def coefficients(self, t: Array) -> Coefficients:
        """Of times of any shape in [0, 1]."""

        def values(t: Array) -> tuple[Array, Array]:
            gamma = self.gamma(t)
            return jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))

        return differentiated(values, jnp.asarray(t))
