"""Layers on channels in either layout: [B, *space, C], or [C, *space, B] if `last`, which is that of `batch_last.py`.

    RMSNorm      y_c = g_c x_c / sqrt(mean_c x_c^2 + 1e-6)              (1)  (Zhang & Sennrich 2019, arXiv:1910.07467)
    Dense        y_o = sum_c w_co x_c + b_o                             (2)
    GroupNorm    y_c = g_c (x_c - m) / sqrt(v + 1e-6) + b_c             (3)  (Wu & He 2018, arXiv:1803.08494)

(1) and (2) are of each cell by itself; m and v are of all cells of the channels in the group of c.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from mmgen_jax.nn.batch_last import times
from mmgen_jax.types import Array


class RMSNorm(nn.Module):
    """Equation (1), computed in float32; g is 1 where it is not `scaled`."""

    dtype: Any = jnp.float32
    last: bool = False
    scaled: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[0 if self.last else -1]
        scale = self.param("scale", nn.initializers.ones, (channels,)) if self.scaled else jnp.ones(channels)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if not self.last:
            y = wide * lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)
            return (y * jnp.broadcast_to(scale, y.shape)).astype(self.dtype)
        # Sums over the first axis, here and in the gradient, as products with ones: on CPU twice as fast.
        mean = jnp.tensordot(jnp.full((1, channels), 1 / channels, wide.dtype), jnp.square(wide), 1)
        inverse = jnp.tensordot(jnp.ones((channels, 1), wide.dtype), lax.rsqrt(mean + 1e-6), 1)
        return (wide * inverse * scale.reshape(-1, *(1,) * (x.ndim - 1))).astype(self.dtype)


class Dense(nn.Module):
    """Equation (2), from C to `features` channels; w begins as `start` says, b at 0, or is left out."""

    features: int
    dtype: Any = jnp.float32
    last: bool = False
    start: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[0 if self.last else -1], self.features)
        kernel = self.param("kernel", self.start, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        y = times(kernel.T, x) if self.last else x @ kernel
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, shape[1:]).astype(self.dtype)
        return y + jnp.broadcast_to(bias.reshape(-1, *(1,) * (x.ndim - 1)) if self.last else bias, y.shape)


class GroupNorm(nn.Module):
    """Equation (3), computed in float32. `groups` divide C; None: each channel by itself (instance norm)."""

    groups: int | None
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axis = 0 if self.last else x.ndim - 1
        scale, bias = (
            self.param(name, init, (x.shape[axis],)).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
            for name, init in (("scale", nn.initializers.ones), ("bias", nn.initializers.zeros))
        )
        groups = self.groups or x.shape[axis]
        wide, mean_of = x.astype(jnp.promote_types(x.dtype, jnp.float32)), grouped_last if self.last else grouped
        mean = mean_of(wide, groups)
        variance = mean_of(jnp.square(wide), groups) - jnp.square(mean)
        y = (wide - mean) * lax.rsqrt(jnp.maximum(variance, 0) + 1e-6)
        return (y * scale + bias).astype(self.dtype)


def grouped(x: Array, groups: int) -> Array:
    """Means: x [B, *n, C] -> [B, 1, ..., C]: of all cells of the channels in each one's group."""
    parts = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean = jnp.broadcast_to(parts.mean((1, 3))[..., None], (len(x), groups, parts.shape[-1]))
    return mean.reshape(len(x), *(1,) * (x.ndim - 2), -1)


def grouped_last(x: Array, groups: int) -> Array:
    """The same of x [C, *n, B] -> [C, 1, ..., B]; a product with ones, as in `RMSNorm`."""
    parts = x.reshape(groups, -1, x.shape[-1])
    ones = jnp.full((groups, 1, parts.shape[1]), 1 / parts.shape[1], x.dtype)
    mean = jnp.broadcast_to(ones @ parts, (groups, len(x) // groups, x.shape[-1]))
    return mean.reshape(len(x), *(1,) * (x.ndim - 2), -1)
