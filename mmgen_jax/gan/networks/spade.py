"""SPADE's network (Park et al. 2019, arXiv:1903.07291): norms that a map modulates place by place.

    n(x)_p  = (1 + g_p) x_p / rms(x_p) + b_p,    [g; b] = conv3 relu(conv3 m)          m the map at this size     (1)
    block   y = n_s(x) W + conv3 a(n_2(conv3 a(n_1(x))))                              a is LeakyReLU             (2)

A generator that normalises what it makes of a map forgets regions of one class; by (1) every layer is told again. It
begins at the smallest size with a convolution of the map and a linear function of the code, and each size has a block
(2), then twice as many cells. Kernels are to be divided by their spectral norms. Not as published: (1) normalises each
cell by itself rather than the batch, as everywhere here; there is one block at the smallest size, not two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.gan.networks.sngan import conv3, doubled, stages
from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class SPADE:
    """The network to a modality; its `features` are the width at full size.

    Attributes:
        growth: the width doubles with every halving until it is so many times that.
        hidden: channels between the map and the scale and shift of (1).
    """

    growth: int = 16
    hidden: int = 128

    def __post_init__(self) -> None:
        for field in ("growth", "hidden"):
            if getattr(self, field) < 1:
                raise ValueError(f"SPADE: {field} is {getattr(self, field)}, but must be at least 1")

    def translator(self, channels: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *space, C] and a code [B, Z] -> [B, *space, channels]."""
        return Network(self, channels, features, dtype)


class Network(nn.Module):
    """A map [B, *space, C] and a code [B, Z] -> [B, *space, channels]."""

    form: SPADE
    channels: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, m: Array, code: Array) -> Array:
        m, kinds = m.astype(self.dtype), stages(m.shape[1:-1], self.features, self.form.growth)
        size, width = kinds[-1]
        x = conv3(width, self.dtype, m)(resized(m, size))
        if code.shape[-1]:
            x = x + nn.Dense(math.prod(size) * width, dtype=self.dtype)(code).reshape(x.shape)
        for size, width in reversed(kinds):
            x = Block(width, self.form.hidden, self.dtype)(doubled(x, size), resized(m, size))
        return conv3(self.channels, self.dtype, x)(nn.leaky_relu(x, 0.2))


class Block(nn.Module):
    """Equation (2): x [B, *n, C] and a map of the same size -> [B, *n, features]."""

    features: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, m: Array) -> Array:
        def normal(x: Array) -> Array:
            return MappedNorm(self.hidden, self.dtype)(x, m)

        h = conv3(self.features, self.dtype, x)(nn.leaky_relu(normal(x), 0.2))
        h = conv3(self.features, self.dtype, x)(nn.leaky_relu(normal(h), 0.2))
        # Without the barrier XLA on CPU recomputes the whole residual chain inside every later block.
        shortcut = nn.Dense(self.features, use_bias=False, dtype=self.dtype)(normal(x))
        return jax.lax.optimization_barrier(shortcut + h)


class MappedNorm(nn.Module):
    """Equation (1): x [B, *n, C] and a map of the same size -> the same shape as x."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, m: Array) -> Array:
        h = nn.relu(conv3(self.hidden, self.dtype, m)(m))
        scale, shift = jnp.split(conv3(2 * x.shape[-1], self.dtype, m)(h), 2, axis=-1)
        return (1 + scale) * nn.RMSNorm(use_scale=False, dtype=self.dtype)(x) + shift


def resized(m: Array, size: Sequence[int]) -> Array:
    """A map [B, *n, C] at fewer cells, [B, *size, C]: what is in the middle of each."""
    for axis, n in enumerate(size, start=1):
        m = jnp.take(m, (jnp.arange(n) * 2 + 1) * m.shape[axis] // (2 * n), axis=axis)
    return m
