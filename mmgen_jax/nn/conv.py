"""Convolutions in one, two or three dimensions, in the form that is fast on every platform.

Everything here is built from one primitive, a convolution, nearly always of stride one. A convolution of kernel 4 and
stride 2 is that primitive with kernel 2 on blocks of two (space-to-depth, Shi et al. 2016, arXiv:1609.07009), and its
adjoint is the same primitive followed by depth-to-space:

    down: [n] -> [ceil(n / 2)]     y_i = sum_k w_k x_{2i + k - 1},   k = 0..3        (1)
    up:   [ceil(n / 2)] -> [n]     the transpose of (1)                              (2)

Kernel 3, whose last tap k = 3 is missing, is what many published networks have: `halve` and `double`. Layers with
`last` have the batch as the last axis, [C, *space, B], as `batch_last.py` says: fast on CPU.

This is no matter of taste. On CPU, XLA runs the gradients of strided and transposed convolutions, and of any
convolution inside `lax.scan`, through naive loops that are 10 to 90 times slower; as a matrix product over shifted
copies they run at the speed of a matrix product, inside a scan too. GPU and TPU have real convolutions: there the
primitive is `lax.conv_general_dilated`. Both forms compute the same numbers (tested).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import RMSNorm
from mmgen_jax.nn.parts import in_parts
from mmgen_jax.types import Array

Padding = Sequence[tuple[int, int]]


def conv(x: Array, kernel: Array, padding: Padding, stride: int = 1) -> Array:
    """x [B, *space, C], kernel [*k, C, O], zero padding (low, high) per axis, one stride for all -> [B, *out, O]."""
    # Chosen while tracing: a program exported from here to another platform stays right, only its speed may differ.
    form = conv_as_matmul if jax.default_backend() == "cpu" else conv_native
    return form(x, kernel, padding, stride)


def conv_native(x: Array, kernel: Array, padding: Padding, stride: int = 1) -> Array:
    """`conv` through the platform's own convolution."""
    space = "DHW"[5 - x.ndim :]
    layout = (f"N{space}C", f"{space}IO", f"N{space}C")
    return lax.conv_general_dilated(x, kernel, (stride,) * len(space), padding, dimension_numbers=layout)


def conv_as_matmul(x: Array, kernel: Array, padding: Padding, stride: int = 1) -> Array:
    """`conv` as matrix products with shifted copies of x: one with all copies side by side, or one with each.

    The narrower side decides, because the wide side of either is what moves through memory.
    """
    shifted = windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel.shape[:-2], stride)
    inputs, outputs = kernel.shape[-2:]
    if inputs > outputs:
        return sum(copy @ kernel[offset] for offset, copy in shifted.items())
    return jnp.concatenate(list(shifted.values()), axis=-1) @ kernel.reshape(-1, outputs)


def windows(x: Array, size: Sequence[int], stride: int = 1) -> dict[tuple[int, ...], Array]:
    """What each cell of a window of `size` sees while it moves over x [B, *space, C]: [B, *out, C] by its offset."""
    ends = [n - k + 1 for n, k in zip(x.shape[1:-1], size, strict=True)]
    return {
        offset: x[:, *(slice(o, o + end, stride) for o, end in zip(offset, ends, strict=True)), :]
        for offset in itertools.product(*(range(k) for k in size))
    }


def halve(x: Array, kernel: Array) -> Array:
    """Kernel 3, stride 2, padding 1: x [B, *n, C], kernel [3, ..., C, O] -> [B, *ceil(n / 2), O]."""
    # One copy of x per tap is faster here than blocks of two, which would multiply by the missing tap.
    return conv(x, kernel, [(1, 1)] * (x.ndim - 2), stride=2)


def double(x: Array, kernel: Array, size: Sequence[int]) -> Array:
    """The adjoint of `halve` (a transposed convolution): x [B, *ceil(n / 2), C], kernel [3, ..., C, O] -> [B, *n, O].

    size: n, the space of the result; each axis is twice that of x or one less.
    """
    d = len(size)
    # Output 2i sees cell i through tap 1; output 2i + 1 sees it through tap 2, and cell i + 1 through tap 0. So taps
    # 1, 2, none, 0 are a kernel [cell, output] of two by two, in each axis.
    taps = jnp.roll(jnp.pad(kernel, ((0, 1),) * d + ((0, 0),) * 2), (-1,) * d, range(d))
    taps = taps.reshape(*(2,) * (2 * d), *kernel.shape[-2:])
    taps = taps.transpose(*range(0, 2 * d, 2), 2 * d, *range(1, 2 * d, 2), 2 * d + 1)
    cells = conv(x, taps.reshape(*(2,) * d, kernel.shape[-2], -1), [(0, 1)] * d)
    return depth_to_space(cells, (2,) * d)[:, *(slice(n) for n in size), :]


def space_to_depth(x: Array, strides: Sequence[int]) -> Array:
    """[B, n_1 s_1, ..., C] -> [B, n_1, ..., prod(s) C]: each block of `strides` becomes the channels of one cell."""
    d = len(strides)
    cells = [n // s for n, s in zip(x.shape[1:-1], strides, strict=True)]
    x = x.reshape(x.shape[0], *itertools.chain(*zip(cells, strides, strict=True)), x.shape[-1])
    x = x.transpose(0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1)
    return x.reshape(x.shape[0], *cells, -1)


def depth_to_space(x: Array, strides: Sequence[int]) -> Array:
    """The inverse of `space_to_depth`."""
    d, cells = len(strides), x.shape[1:-1]
    x = x.reshape(x.shape[0], *cells, *strides, -1)
    x = x.transpose(0, *itertools.chain(*((1 + i, 1 + d + i) for i in range(d))), 2 * d + 1)
    return x.reshape(x.shape[0], *(n * s for n, s in zip(cells, strides, strict=True)), -1)


def filled(x: Array, strides: Sequence[int]) -> Array:
    """x [B, *space, C] with zeros at the end of each axis of space, up to a multiple of its stride."""
    return jnp.pad(x, ((0, 0), *((0, -n % s) for n, s in zip(x.shape[1:-1], strides, strict=True)), (0, 0)))


def halvings(space: Sequence[int]) -> list[tuple[int, ...]]:
    """The sizes on the way from `space` down, halving (rounding up) until no axis is longer than 4."""
    sizes = [tuple(space)]
    while max(sizes[-1]) > 4:
        sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
    return sizes


def strides_between(large: Sequence[int], small: Sequence[int]) -> tuple[int, ...]:
    """2 where an axis was halved, 1 where it could not be: its size is 1."""
    return tuple(2 if n != m else 1 for n, m in zip(large, small, strict=True))


class Down(nn.Module):
    """Equation (1), [B, *n, C] -> [B, *m, features]; an axis of stride 1 has size 1 and kernel 1.

    causal: along the first axis y_i is of x_{2i - 2}, ..., x_{2i + 1}: of nothing after its own two.
    last: x and the result are [C, *n, B].
    """

    features: int
    strides: tuple[int, ...]
    dtype: Any = jnp.float32
    causal: bool = False
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # One pixel of padding in front puts pixels 2i-1 .. 2i+2 into the cells i and i+1, two put 2i-2 .. 2i+1 there.
        front = [2 if self.causal and axis == 0 else 1 for axis in range(x.ndim - 2)]
        sizes = zip(front, x.shape[1:-1], self.strides, strict=True)
        pad = [(f, 2 - f + n % 2) if s == 2 else (0, 0) for f, n, s in sizes]
        in_cells = batch_last.space_to_depth if self.last else space_to_depth
        cells = in_cells(jnp.pad(x, ((0, 0), *pad, (0, 0))), self.strides)
        return ConvOnCells(self.features, self.strides, [(0, 0)] * len(pad), self.dtype, self.last)(cells)


class Up(nn.Module):
    """Equation (2), [B, *m, C] -> [B, *size, features]; the mirror of `Down`.

    causal: along the first axis both y_{2i} and y_{2i + 1} are of x_{i - 1} and x_i alone.
    last: x and the result are [C, *m, B].
    """

    features: int
    size: tuple[int, ...]
    dtype: Any = jnp.float32
    causal: bool = False
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        strides = strides_between(self.size, x.shape[1:-1])
        outputs = math.prod(strides) * self.features
        cells = ConvOnCells(outputs, strides, [(s - 1, s - 1) for s in strides], self.dtype, self.last)(x)
        # The mirror of Down's padding: the first pixel of the first cell lies outside. Kept, none sees a later cell.
        first = [0 if self.causal and axis == 0 else s - 1 for axis, s in enumerate(strides)]
        inside = (slice(f, f + n) for f, n in zip(first, self.size, strict=True))
        pixels = batch_last.depth_to_space if self.last else depth_to_space
        return pixels(cells, strides)[:, *inside, :]


class ConvOnCells(nn.Module):
    """`conv` with its parameters. The kernel is stored flat, [prod(size) C, features]: XLA takes five times as long to
    compile the drawing of random numbers in many dimensions.

    last: x and the result are [C, *n, B].
    """

    features: int
    size: tuple[int, ...]
    padding: Padding
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[0 if self.last else -1]
        flat = (math.prod(self.size) * channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), flat).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        if self.last:
            y = batch_last.conv(x.astype(self.dtype), kernel, self.size, self.padding)
            return y + jnp.broadcast_to(bias.reshape(-1, *(1,) * (x.ndim - 1)), y.shape)
        y = conv(x.astype(self.dtype), kernel.reshape(*self.size, channels, self.features), self.padding)
        return y + jnp.broadcast_to(bias, y.shape)


class ConvEncoder(nn.Module):
    """[B, *space, C] -> [B, outputs]: halve until no axis is longer than 4, doubling the width up to 8 x `features`.

    `fold` cells along each axis become one before the first layer (zeros fill up the last): time and memory fall with
    the number of cells at the first layers, which is most of them.
    """

    outputs: int
    features: int = 32
    fold: tuple[int, ...] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.fold:
            x = space_to_depth(filled(x, self.fold), self.fold)
        sizes, last = halvings(x.shape[1:-1]), batch_last.preferred()
        x = batch_last.turned(x, last)
        for i, (large, small) in enumerate(itertools.pairwise(sizes)):
            x = Down(self.features * min(2**i, 8), strides_between(large, small), self.dtype, last=last)(x)
            x = nn.silu(RMSNorm(self.dtype, last)(x))
        x = batch_last.turned(x, last)
        x = x.reshape(x.shape[0], -1)
        x = nn.silu(nn.Dense(8 * self.features, dtype=self.dtype)(x))
        return nn.Dense(self.outputs, dtype=self.dtype)(x)


class ConvDecoder(nn.Module):
    """z [B, Z] -> [B, *space, C] with shape = (*space, C): the mirror of `ConvEncoder`, linear at the end."""

    shape: tuple[int, ...]
    features: int = 32
    fold: tuple[int, ...] = ()
    dtype: Any = jnp.float32

    def __call__(self, z: Array) -> Array:
        return in_parts(type(self).whole, self, z)

    @nn.compact
    def whole(self, z: Array) -> Array:
        """The same for all rows at once."""
        *space, channels = self.shape
        fold = self.fold or (1,) * len(space)
        cells = tuple(-(-n // f) for n, f in zip(space, fold, strict=True))
        y = self.unfolded(z, (*cells, channels * math.prod(fold)))
        return depth_to_space(y, fold)[:, *(slice(n) for n in space), :]

    def unfolded(self, z: Array, shape: tuple[int, ...]) -> Array:
        """z [B, Z] -> [B, *shape], of cells that are not taken apart yet."""
        sizes = halvings(shape[:-1])[::-1]
        widths = [self.features * min(2**i, 8) for i in range(len(sizes) - 1)][::-1]
        x = nn.silu(nn.Dense(8 * self.features, dtype=self.dtype)(z))
        x = nn.Dense(math.prod(sizes[0]) * (widths or [shape[-1]])[0], dtype=self.dtype)(x)
        x, last = x.reshape(x.shape[0], *sizes[0], -1), batch_last.preferred()
        x = batch_last.turned(x, last)
        for size, width in zip(sizes[1:], [*widths[1:], shape[-1]], strict=False):
            x = nn.silu(RMSNorm(self.dtype, last)(x))
            x = Up(width, size, self.dtype, last=last)(x)
        return batch_last.turned(x, last)
