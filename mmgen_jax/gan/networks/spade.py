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
import jax.numpy as jnp

from mmgen_jax.gan.networks.sngan import conv3, doubled, stages
from mmgen_jax.materialized import materialized
from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import Dense, RMSNorm
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
        kinds, last = stages(m.shape[1:-1], self.features, self.form.growth), batch_last.preferred()
        m, (size, width) = batch_last.turned(m.astype(self.dtype), last), kinds[-1]
        x = conv3(width, self.dtype, len(size), last)(resized(m, size))
        if code.shape[-1]:
            start = nn.Dense(math.prod(size) * width, dtype=self.dtype)(code)
            x = x + batch_last.turned(start.reshape(len(code), *size, width), last)
        for size, width in reversed(kinds):
            x = Block(width, self.form.hidden, self.dtype, last)(doubled(x, size), resized(m, size))
        x = conv3(self.channels, self.dtype, len(size), last)(nn.leaky_relu(x, 0.2))
        return batch_last.turned(x, last)


class Block(nn.Module):
    """Equation (2): x [B, *n, C] and a map of the same size -> [B, *n, features]; if `last`, the batch is the last
    axis of all."""

    features: int
    hidden: int
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array, m: Array) -> Array:
        def normal(x: Array) -> Array:
            return MappedNorm(self.hidden, self.dtype, self.last)(x, m)

        h = conv3(self.features, self.dtype, x.ndim - 2, self.last)(nn.leaky_relu(normal(x), 0.2))
        h = conv3(self.features, self.dtype, x.ndim - 2, self.last)(nn.leaky_relu(normal(h), 0.2))
        shortcut = Dense(self.features, self.dtype, self.last, bias=False)(normal(x))
        return materialized(shortcut + h)


class MappedNorm(nn.Module):
    """Equation (1): x and a map as of `Block` -> the same shape as x."""

    hidden: int
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array, m: Array) -> Array:
        d, axis = x.ndim - 2, 0 if self.last else x.ndim - 1
        h = nn.relu(conv3(self.hidden, self.dtype, d, self.last)(m))
        scale, shift = jnp.split(conv3(2 * x.shape[axis], self.dtype, d, self.last)(h), 2, axis)
        return (1 + scale) * RMSNorm(self.dtype, self.last, scaled=False)(x) + shift


def resized(m: Array, size: Sequence[int]) -> Array:
    """A map [., *n, .] at fewer cells, [., *size, .]: what is in the middle of each."""
    for axis, n in enumerate(size, start=1):
        m = jnp.take(m, (jnp.arange(n) * 2 + 1) * m.shape[axis] // (2 * n), axis=axis)
    return m
