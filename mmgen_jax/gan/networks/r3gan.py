"""R3GAN's networks (Huang et al. 2025, arXiv:2501.05441), for any size and number of axes of space.

A block, without any normalisation:      y = x + W3 a(conv3x3_groups(a(W1 x)))                                    (1)

W1 widens, W3, which begins at zero, narrows again; a(h) = lrelu(h + bias). Kernels begin at N(0, gain^2 / fan-in) with
gain = sqrt(2 / (1 + 0.2^2)) L^(-1/4) in a network of L blocks (as Fixup), and 1 where no lrelu follows. Between the
stages, in each axis, sizes are halved and doubled by the filter [1, 3, 3, 1]. The generator begins with a learned basis
[*cells, C], each channel of which is scaled by a linear function of the code; the critic ends with one weight for each
place and channel, summed over places, and a linear layer. Where there is no space at all, (1) has no convolution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.materialized import materialized
from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import Dense
from mmgen_jax.nn.conv import conv, halvings
from mmgen_jax.types import Array

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))


@dataclasses.dataclass(frozen=True)
class R3GAN:
    """The networks of a modality; its `features` are the width at full size.

    Attributes:
        blocks: in each stage, that is at each size.
        growth: the width doubles with every halving until it is so many times the modality's.
        expansion: how many times as wide a block is inside.
        group: channels of each group of the convolutions, fewer where a width is not a multiple of it.
    """

    blocks: int = 2
    growth: int = 4
    expansion: int = 2
    group: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"R3GAN: {field.name} is {getattr(self, field.name)}, but must be at least 1")

    def generator(self, shape: Sequence[int], features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> [B, *shape]."""
        return Generator(self, tuple(shape), features, dtype)

    def critic(self, outputs: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        return Critic(self, outputs, features, dtype)

    def widths(self, stages: int, features: int) -> list[int]:
        """From full size down."""
        return [features * min(2**i, self.growth) for i in range(stages)]


class Generator(nn.Module):
    """Code [B, Z] -> [B, *shape]."""

    form: R3GAN
    shape: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, code: Array) -> Array:
        sizes = stage_sizes(self.shape[:-1])
        widths = self.form.widths(len(sizes), self.features)
        total = self.form.blocks * len(sizes)
        basis = self.param("basis", nn.initializers.normal(1.0), (math.prod(sizes[-1]), widths[-1]))
        scale = linear(widths[-1], 1.0, self.dtype)(code)
        x = basis.astype(self.dtype).reshape(1, *sizes[-1], -1) * spread(scale, len(sizes[-1]))
        last = batch_last.preferred()
        x = batch_last.turned(x, last)
        for i in reversed(range(len(sizes))):
            if i + 1 < len(sizes):
                if widths[i] != widths[i + 1]:
                    x = linear(widths[i], 1.0, self.dtype, last, bias=False)(x)
                x = doubled(x, sizes[i])
            for _ in range(self.form.blocks):
                x = Block(self.form, total, self.dtype, last)(x)
        return batch_last.turned(linear(self.shape[-1], 1.0, self.dtype, last)(x), last)


class Critic(nn.Module):
    """[B, *space, C] -> [B, outputs]."""

    form: R3GAN
    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        sizes = stage_sizes(x.shape[1:-1])
        widths = self.form.widths(len(sizes), self.features)
        total = self.form.blocks * len(sizes)
        last = batch_last.preferred()
        x = linear(widths[0], 1.0, self.dtype, last)(batch_last.turned(x.astype(self.dtype), last))
        for i, width in enumerate(widths):
            if i:
                x = halved(x)
                if width != widths[i - 1]:
                    x = linear(width, 1.0, self.dtype, last, bias=False)(x)
            for _ in range(self.form.blocks):
                x = Block(self.form, total, self.dtype, last)(x)
        x, cells = batch_last.turned(x, last), math.prod(sizes[-1])
        places = self.param("places", nn.initializers.normal(1 / math.sqrt(cells)), (cells, x.shape[-1]))
        x = (x.reshape(len(x), cells, -1) * places.astype(self.dtype)[None]).sum(1)
        return linear(self.outputs, 1.0, self.dtype)(x)


class Block(nn.Module):
    """Equation (1), x [B, *space, C], or [C, *space, B] if `last`, -> the same shape."""

    form: R3GAN
    total: int  # L, the number of blocks of the network
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gain = GAIN * self.total**-0.25
        channels = x.shape[0 if self.last else -1]
        inside = self.form.expansion * channels
        h = nn.leaky_relu(linear(inside, gain, self.dtype, self.last)(x), SLOPE)
        if x.ndim > 2:
            h = nn.leaky_relu(GroupedConv(math.gcd(self.form.group, inside), gain, self.dtype, self.last)(h), SLOPE)
        h = linear(channels, 0.0, self.dtype, self.last, bias=False)(h)
        return materialized(x + h)


class GroupedConv(nn.Module):
    """Kernel 3 along each axis, within groups of channels, and a bias: x as of `Block` -> the same shape."""

    group: int
    gain: float
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        d, axis = x.ndim - 2, 0 if self.last else x.ndim - 1
        groups, fan_in = x.shape[axis] // self.group, 3**d * self.group
        start = nn.initializers.normal(self.gain / math.sqrt(fan_in))
        kernel = self.param("kernel", start, (groups, fan_in, self.group)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[axis],)).astype(self.dtype)

        def one(part: Array, kernel: Array) -> Array:
            if self.last:
                return batch_last.conv(part, kernel, (3,) * d, [(1, 1)] * d)
            return conv(part, kernel.reshape(*(3,) * d, self.group, self.group), [(1, 1)] * d)

        parts = x.reshape(*x.shape[:axis], groups, self.group, *x.shape[axis + 1 :])
        y = jax.vmap(one, (axis, 0), axis)(parts, kernel).reshape(x.shape)
        return y + bias.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def linear(features: int, gain: float, dtype: Any, last: bool = False, bias: bool = True) -> Dense:
    """A linear layer whose kernel begins at N(0, gain^2 / fan-in)."""
    start = nn.initializers.variance_scaling(gain**2, "fan_in", "normal") if gain else nn.initializers.zeros
    return Dense(features, dtype, last, start, bias)


def stage_sizes(space: Sequence[int]) -> list[tuple[int, ...]]:
    """The sizes of the stages from `space` down; one stage, (), where there is no space."""
    return halvings(space) if space else [()]


def spread(x: Array, d: int) -> Array:
    """[B, C] -> [B, 1, ..., 1, C] with d axes of space."""
    return x.reshape(len(x), *(1,) * d, x.shape[-1])


def halved(x: Array) -> Array:
    """The filter [1, 3, 3, 1] / 8 at every second cell, in each axis of more than one: [., *n, .] -> ceil(n / 2)."""
    for axis in range(1, x.ndim - 1):
        if (n := x.shape[axis]) > 1:
            # Pixels 2i-1 .. 2i+2 are the second of cell i, both of cell i + 1, and the first of the one after.
            padded = jnp.pad(x, [(1, 1 + n % 2) if i == axis else (0, 0) for i in range(x.ndim)])
            pairs = padded.reshape(*x.shape[:axis], -(-n // 2) + 1, 2, *x.shape[axis + 1 :])
            (a, b), (c, d) = (
                [jnp.take(part, i, axis=axis + 1) for i in (0, 1)]
                for part in (jax.lax.slice_in_dim(pairs, s, s + -(-n // 2), axis=axis) for s in (0, 1))
            )
            x = (a + 3 * b + 3 * c + d) / 8
    return x


def doubled(x: Array, size: Sequence[int]) -> Array:
    """The transpose of `halved` times 2 in each axis: [., *ceil(n / 2), .] -> [., *n, .], n = `size`."""
    for axis, n in enumerate(size, start=1):
        if n > 1:
            m = x.shape[axis]
            wide = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
            before, after = (jax.lax.slice_in_dim(wide, s, s + m, axis=axis) for s in (0, 2))
            pairs = jnp.stack([(before + 3 * x) / 4, (3 * x + after) / 4], axis=axis + 1)
            whole = pairs.reshape(*x.shape[:axis], 2 * m, *x.shape[axis + 1 :])
            x = jax.lax.slice_in_dim(whole, 0, n, axis=axis)
    return x
