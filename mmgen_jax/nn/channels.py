"""Root-mean-square norm (Zhang & Sennrich 2019, arXiv:1910.07467), in either layout.

y_c = g_c x_c / sqrt(mean_c x_c^2 + 1e-6),   c the channels of one cell      (1)
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from mmgen_jax.nn.batch_last import times
from mmgen_jax.types import Array


class RMSNorm(nn.Module):
    """Equation (1), computed in float32."""

    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[0 if self.last else -1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if not self.last:
            y = wide * lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)
            return (y * jnp.broadcast_to(scale, y.shape)).astype(self.dtype)
        # Sums over the first axis, here and in the gradient, as products with ones: on CPU twice as fast.
        mean = jnp.tensordot(jnp.full((1, channels), 1 / channels, wide.dtype), jnp.square(wide), 1)
        inverse = jnp.tensordot(jnp.ones((channels, 1), wide.dtype), lax.rsqrt(mean + 1e-6), 1)
        return (wide * inverse * scale.reshape(-1, *(1,) * (x.ndim - 1))).astype(self.dtype)


class Dense(nn.Module):
    """Equation (2), from C to `features` channels."""

    features: int
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[0 if self.last else -1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        x = x.astype(self.dtype)
        return times(kernel.T, x) if self.last else x @ kernel


class GroupNorm(nn.Module):
    """Equation (3), computed in float32. `groups` divide C."""

    groups: int
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axis = 0 if self.last else x.ndim - 1
        scale, bias = (
            self.param(name, init, (x.shape[axis],)).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
            for name, init in (("scale", nn.initializers.ones), ("bias", nn.initializers.zeros))
        )
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.last:
            mean = grouped_mean_last(wide, self.groups)
            spread = grouped_mean_last(jnp.square(wide), self.groups)
        else:
            mean = grouped_mean(wide, self.groups)
            spread = grouped_mean(jnp.square(wide), self.groups)
        y = (wide - mean) * lax.rsqrt(jnp.maximum(spread - jnp.square(mean), 0) + 1e-6)
        return (y * scale + bias).astype(self.dtype)


def grouped_mean(x: Array, groups: int) -> Array:
    """x [B, *n, C] -> [B, 1, ..., C]: of all cells of the channels in each one's group."""
    parts = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean = jnp.broadcast_to(parts.mean((1, 3))[..., None], (len(x), groups, parts.shape[-1]))
    return mean.reshape(len(x), *(1,) * (x.ndim - 2), -1)


def grouped_mean_last(x: Array, groups: int) -> Array:
    """The same of x [C, *n, B] -> [C, 1, ..., B]; a product with ones, as in `RMSNorm`."""
    parts = x.reshape(groups, -1, x.shape[-1])
    ones = jnp.full((groups, 1, parts.shape[1]), 1 / parts.shape[1], x.dtype)
    mean = jnp.broadcast_to(ones @ parts, (groups, len(x) // groups, x.shape[-1]))
    return mean.reshape(len(x), *(1,) * (x.ndim - 2), -1)
