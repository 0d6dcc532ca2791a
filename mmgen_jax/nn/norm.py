"""Root-mean-square norm (Zhang & Sennrich 2019, arXiv:1910.07467), in either layout.

y_c = g_c x_c / sqrt(mean_c x_c^2 + 1e-6),   c the channels of one cell      (1)
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from mmgen_jax.types import Array


class RMSNorm(nn.Module):
    """Equation (1) on x [..., C], or [C, ...] if `last`: the batch is the last axis (`batch_last.py`)."""

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
