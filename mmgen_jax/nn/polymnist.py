"""The networks with which results on PolyMNIST are published, for pictures of any size and number of channels.

    convolutions    [28, 28, 3] - 14 x 14 x 32 - 7 x 7 x 64 - 4 x 4 x 128, kernel 3 and ReLU     (1)
    residual        [28, 28, 3] - 28 x 28 x 64 - 14 x 14 x 128 - 7 x 7 x 256, one block a size   (2)
    block           x + 0.1 conv(a(conv(a(x)))),  a = leaky ReLU of slope 0.2                    (3)

(1) is that of MoPoE (Sutter et al. 2021, arXiv:2105.02470) and MVTCAE (Hwang et al. 2021), (2) that of MMVAE+ (Palumbo
et al. 2023, openreview sdQGxouELX). They are passed as a user's own networks:

    Image(28, 28, 3, encoder=ConvEncoder(), decoder=ConvDecoder())
    Image(28, 28, 3, encoder=Towers(ResNetEncoder(), private=32), decoder=ResNetDecoder())

With the weights of MultiVae, the PyTorch library, they are the functions that its classes of EncoderConvMMNIST,
DecoderConvMMNIST, EncoderResnetMMNIST and DecoderResnetMMNIST are (`vae/multivae.py` converts them).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import Dense
from mmgen_jax.nn.conv import conv, double, halve
from mmgen_jax.nn.parts import in_parts
from mmgen_jax.types import Array

leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)


class Conv3(nn.Module):
    """A convolution of kernel 3, [B, *n, C] -> [B, *n, features]; of stride 2, or the adjoint of that.

    stride: 2 halves n, rounding up.
    size: what n doubles to instead (see `nn.conv.double`).
    last: whether x and the result are [C, *n, B].
    causal: whether the kernel reaches back alone along the first axis of n; with stride 1 only.
    """

    features: int
    stride: int = 1
    size: tuple[int, ...] | None = None
    last: bool = False
    dtype: Any = jnp.float32
    causal: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        d, channels = x.ndim - 2, x.shape[0 if self.last else -1]
        # Stored flat, as in `ConvOnCells`: that is much faster to compile.
        flat = self.param("kernel", nn.initializers.lecun_normal(), (3**d * channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        x, flat = x.astype(self.dtype), flat.astype(self.dtype)
        around = [(2, 0) if self.causal else (1, 1), *[(1, 1)] * (d - 1)]
        if self.last:
            if self.size is not None:
                y = batch_last.double(x, flat, self.size)
            else:
                y = batch_last.halve(x, flat) if self.stride == 2 else batch_last.conv(x, flat, (3,) * d, around)
            return y + jnp.broadcast_to(bias.reshape(-1, *(1,) * (d + 1)), y.shape)
        kernel = flat.reshape(*(3,) * d, channels, self.features)
        if self.size is not None:
            y = double(x, kernel, self.size)
        else:
            y = halve(x, kernel) if self.stride == 2 else conv(x, kernel, around)
        return y + jnp.broadcast_to(bias, y.shape)


class ConvEncoder(nn.Module):
    """Network (1), [B, H, W, C] -> [B, F].

    hidden: units of one more layer with ReLU; 0 for none, then F is 2048 for 28 x 28.
    """

    hidden: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        last = batch_last.preferred()
        x = batch_last.turned(x, last)
        for features in (32, 64, 128):
            x = nn.relu(Conv3(features, stride=2, last=last, dtype=self.dtype)(x))
        x = batch_last.turned(x, last)
        x = x.reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x)) if self.hidden else x


class ConvDecoder(nn.Module):
    """Network (1) backwards, z [B, Z] -> [B, *shape], linear at the end."""

    shape: tuple[int, ...] = (28, 28, 3)
    dtype: Any = jnp.float32

    def __call__(self, z: Array) -> Array:
        return in_parts(type(self).whole, self, z)

    @nn.compact
    def whole(self, z: Array) -> Array:
        """The same for all rows at once."""
        *sizes, smallest = halved(self.shape[:-1], 3)
        x = nn.relu(nn.Dense(math.prod(smallest) * 128, dtype=self.dtype)(z)).reshape(z.shape[0], *smallest, 128)
        last = batch_last.preferred()
        x = batch_last.turned(x, last)
        for features, size in zip((64, 32), sizes[:0:-1], strict=True):
            x = nn.relu(Conv3(features, size=size, last=last, dtype=self.dtype)(x))
        x = Conv3(self.shape[-1], size=sizes[0], last=last, dtype=self.dtype)(x)
        return batch_last.turned(x, last)


class ResidualBlock(nn.Module):
    """Block (3), [B, *n, C] -> [B, *n, features], with a linear short cut where C is another number.

    activation_first: False for x + 0.1 a(conv(a(conv(x)))), to which MultiVae's own classes changed it.
    last: whether x and the result are [C, *n, B].
    """

    features: int
    activation_first: bool = True
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y, channels = x, x.shape[0 if self.last else -1]
        for width in (min(channels, self.features), self.features):
            layer = Conv3(width, dtype=self.dtype, last=self.last)
            y = layer(leaky(y)) if self.activation_first else leaky(layer(y))
        if channels != self.features:
            x = Dense(self.features, self.dtype, self.last, bias=False)(x)
        return x + 0.1 * y


class ResNetEncoder(nn.Module):
    """Network (2), [B, H, W, C] -> [B, F], F = 12544 for 28 x 28."""

    features: int = 64
    halvings: int = 2
    activation_first: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        last = batch_last.preferred()
        x = batch_last.turned(x, last)
        how = {"activation_first": self.activation_first, "dtype": self.dtype, "last": last}
        x = ResidualBlock(self.features, **how)(Conv3(self.features, dtype=self.dtype, last=last)(x))
        for i in range(self.halvings):
            x = ResidualBlock(self.features * 2 ** (i + 1), **how)(pooled(x))
        x = batch_last.turned(x, last)
        return x.reshape(x.shape[0], -1)


class ResNetDecoder(nn.Module):
    """Network (2) backwards, z [B, Z] -> [B, *shape], linear at the end (without `activation_first`: leaky ReLU)."""

    shape: tuple[int, ...] = (28, 28, 3)
    features: int = 64
    halvings: int = 2
    activation_first: bool = True
    dtype: Any = jnp.float32

    def __call__(self, z: Array) -> Array:
        return in_parts(type(self).whole, self, z)

    @nn.compact
    def whole(self, z: Array) -> Array:
        """The same for all rows at once."""
        *sizes, smallest = halved(self.shape[:-1], self.halvings)
        width = self.features * 2**self.halvings
        x = nn.Dense(math.prod(smallest) * width, dtype=self.dtype)(z).reshape(z.shape[0], *smallest, width)
        last = batch_last.preferred()
        x = batch_last.turned(x, last)
        how = {"activation_first": self.activation_first, "dtype": self.dtype, "last": last}
        for i, size in reversed(list(enumerate(sizes))):
            x = repeated(ResidualBlock(self.features * 2**i, **how)(x), size)
        x = ResidualBlock(self.features, **how)(x)
        end = Conv3(self.shape[-1], dtype=self.dtype, last=last)
        x = end(leaky(x)) if self.activation_first else leaky(end(x))
        return batch_last.turned(x, last)


def halved(space: Sequence[int], times: int) -> list[tuple[int, ...]]:
    """`space` and its sizes after 1, ..., `times` halvings, rounding up."""
    return [tuple(-(-n // 2**i) for n in space) for i in range(times + 1)]


def pooled(x: Array) -> Array:
    """The mean of windows of 3 at stride 2, [B, *n, C] -> [B, *ceil(n / 2), C]; what lies outside counts as zero.

    So for [C, *n, B]; and `repeated` too.
    """
    for axis in range(1, x.ndim - 1):
        half = -(-x.shape[axis] // 2)
        pad = [(0, 2 * half - x.shape[axis] if i == axis else 0) for i in range(x.ndim)]
        pairs = jnp.pad(x, pad).reshape(*x.shape[:axis], half, 2, *x.shape[axis + 1 :])
        even, odd = jnp.moveaxis(pairs, axis + 1, 0)
        before = jnp.pad(odd, [(int(i == axis), 0) for i in range(x.ndim)])
        x = even + odd + lax.slice_in_dim(before, 0, half, axis=axis)
    return x / 3 ** (x.ndim - 2)


def repeated(x: Array, size: Sequence[int]) -> Array:
    """Every cell twice along each axis of space, cut to `size` at the end."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
    return x[:, : size[0], : size[1]]
