"""StyleGAN2's networks (Karras et al. 2020, arXiv:1912.04958), for any size and number of axes of space.

    w   = MLP(c / rms(c))                                                  the style, of the code c           (1)
    w'_kio = s_i w_kio,   s = A w                                          modulated: inputs are scaled       (2)
    w''_kio = w'_kio / sqrt(sum_ki w'_kio^2)                               demodulated: outputs have norm 1   (3)
    y   = lrelu(w'' * x + b n + bias) sqrt(2),   n ~ N(0, 1)               n at each place, b learned         (4)
    picture_l = up(picture_{l+1}) + toRGB(y_l)                             a sum over all sizes               (5)

The generator begins with learned cells; the critic is residual, and before its end sees the deviation of a group of
examples, (4) of `sngan.py`. Kernels begin at N(0, 1) and are divided where they are used by the root of their fan-in,
those of (1) learn at a hundredth of the rate. Sizes change by the filter [1, 3, 3, 1], applied after a transposed
convolution and before a strided one. As (2) scales inputs and (3) outputs, no example needs kernels of its own.

A style is [B, layers, W], one row for each layer, so that one may be told something else than another, and so that
`PathLength` measures what a step in each does: `GAN(networks=StyleGAN2(), loss=NonSaturating(),
penalties=(R1(every=16),), path_length=PathLength())`. Published for 256 x 256: width 64 at full size, growth 8.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.gan.networks.r3gan import doubled, halved, spread, stage_sizes
from mmgen_jax.gan.networks.sngan import stages, with_deviation
from mmgen_jax.materialized import materialized
from mmgen_jax.nn.conv import conv
from mmgen_jax.nn.strided import strided, transposed
from mmgen_jax.types import Array

SLOPE, GAIN = 0.2, math.sqrt(2)
SLOW = 0.01  # the rate of the mapping network, relative to that of others
EPS = 1e-8  # of squares whose roots are divided by


@dataclasses.dataclass(frozen=True)
class StyleGAN2:
    """The networks of a modality; its `features` are the width at full size.

    Attributes:
        growth: the width doubles with every halving until it is so many times that.
        style: the width of w.
        layers: of the mapping network (1).
        group: examples whose deviation the critic sees, fewer where the batch is no multiple; 0 for none. With it what
            the critic says of an example depends on the others of the batch.
    """

    growth: int = 8
    style: int = 512
    layers: int = 8
    group: int = 4

    def __post_init__(self) -> None:
        for field, least in (("growth", 1), ("style", 1), ("layers", 1), ("group", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"StyleGAN2: {field} is {getattr(self, field)}, but must be at least {least}")

    def generator(self, shape: Sequence[int], features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] and noise [B, *size] for each layer -> [B, *shape]."""
        return Generator(self, tuple(shape), features, dtype)

    def critic(self, outputs: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        return Critic(self, outputs, features, dtype)

    def noise(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """n of (4), for each layer from the smallest size up: one there, two at every other."""
        *larger, smallest = stage_sizes(shape[:-1])
        return (smallest, *(size for size in reversed(larger) for _ in range(2)))


class Generator(nn.Module):
    """Code [B, Z], noise [B, *size] of each layer -> [B, *shape]."""

    form: StyleGAN2
    shape: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        space, channels = self.shape[:-1], self.shape[-1]
        (smallest, width), *larger = stages(space, self.features, self.form.growth)[::-1]
        self.mapping = [Linear(self.form.style, rate=SLOW, dtype=self.dtype) for _ in range(self.form.layers)]
        self.basis = self.param("basis", nn.initializers.normal(1.0), (math.prod(smallest), width))
        kinds = [(smallest, width), *itertools.chain(*((stage, stage) for stage in larger))]
        self.convs = [StyledConv(size, width, self.dtype) for size, width in kinds]
        self.pictures = [StyledLinear(channels, self.dtype) for _ in range(len(larger) + 1)]

    def style(self, code: Array) -> Array:
        """Equation (1), the same for all layers: [B, Z] -> [B, layers, W]."""
        w = code.astype(self.dtype)
        w = w / jnp.sqrt((w**2).mean(-1, keepdims=True) + EPS)
        for layer in self.mapping:
            w = activated(layer(w))
        return jnp.repeat(w[:, None], len(self.convs) + 1, axis=1)

    def made(self, style: Array, *noise: Array) -> Array:
        """All that follows (1)."""
        x = self.basis.astype(self.dtype).reshape(1, *self.convs[0].size, -1)
        x = jnp.broadcast_to(x, (len(style), *x.shape[1:]))
        picture = jnp.zeros((), self.dtype)
        for i, (layer, n) in enumerate(zip(self.convs, noise, strict=True)):
            x = layer(x, style[:, i], n)
            if i % 2 == 0:  # the last of its size; its picture follows the style of the next layer
                before = doubled(picture, layer.size) if i else picture
                picture = before + self.pictures[i // 2](x, style[:, i + 1])
        return picture

    def __call__(self, code: Array, *noise: Array) -> Array:
        return self.made(self.style(code), *noise)


class Critic(nn.Module):
    """[B, *space, C] -> [B, outputs]."""

    form: StyleGAN2
    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        widths = [width for _, width in stages(x.shape[1:-1], self.features, self.form.growth)]
        x = activated(Linear(widths[0], dtype=self.dtype)(x.astype(self.dtype)))
        for width, smaller in itertools.pairwise(widths):
            h = activated(Conv(width, dtype=self.dtype)(x))
            h = activated(Conv(smaller, halves=True, dtype=self.dtype)(h))
            shortcut = Linear(smaller, bias=None, dtype=self.dtype)(halved(x))
            x = materialized((h + shortcut) / math.sqrt(2))
        if self.form.group:
            x = with_deviation(x, self.form.group)
        x = activated(Conv(widths[-1], dtype=self.dtype)(x)).reshape(len(x), -1)
        return Linear(self.outputs, dtype=self.dtype)(activated(Linear(widths[-1], dtype=self.dtype)(x)))


class Linear(nn.Module):
    """[..., C] -> [..., features], learning at `rate`; its bias begins at `bias`, None for none."""

    features: int
    rate: float = 1.0
    bias: float | None = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x @ (self.rate * scaled_kernel(self, (), x.shape[-1], 1 / self.rate)).astype(self.dtype)
        if self.bias is None:
            return y
        start = nn.initializers.constant(self.bias / self.rate)
        bias = self.param("bias", start, (self.features,)).astype(self.dtype) * self.rate
        return y + jnp.broadcast_to(bias, y.shape)


class Conv(nn.Module):
    """Kernel 3 along each axis, [B, *n, C] -> [B, *n, features], or [B, *ceil(n / 2), features] if it halves."""

    features: int
    halves: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        moves = [self.halves and n > 1 for n in x.shape[1:-1]]
        kernel = scaled_kernel(self, taps(moves, self.halves), x.shape[-1]).astype(self.dtype)
        if self.halves:
            cells = tuple(-(-n // 2) for n in x.shape[1:-1])
            for axis, move in enumerate(moves, start=1):
                x = filtered(x, axis, (2, 2 + x.shape[axis] % 2)) if move else x
            y = strided(x, kernel, [2 if move else 1 for move in moves], [0] * len(moves))
            y = y[:, *(slice(n) for n in cells), :]
        else:
            y = convolved(x, kernel)
        return y + jnp.broadcast_to(
            self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype), y.shape
        )


class StyledConv(nn.Module):
    """Equations (2) to (4): x [B, *m, C], style [B, W], noise [B, *size] -> [B, *size, features]; m is size or half."""

    size: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, style: Array, noise: Array) -> Array:
        d, moves = len(self.size), [n != m for n, m in zip(x.shape[1:-1], self.size, strict=True)]
        kernel = scaled_kernel(self, taps(moves, any(moves)), x.shape[-1])
        s = Linear(x.shape[-1], bias=1.0, dtype=self.dtype)(style)
        x = x * spread(s, d)
        if any(moves):
            sizes = [2 * n + 1 if move else n for n, move in zip(x.shape[1:-1], moves, strict=True)]
            strides = [2 if move else 1 for move in moves]
            x = transposed(x, kernel.astype(self.dtype), strides, [0] * d, sizes)
            for axis, move in enumerate(moves, start=1):
                x = 2 * filtered(x, axis, (1, 1)) if move else x
            x = x[:, *(slice(n) for n in self.size), :]
        else:
            x = convolved(x, kernel.astype(self.dtype))
        x = x * spread(demodulation(kernel, s).astype(self.dtype), d)
        strength = self.param("strength", nn.initializers.zeros, ()).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return activated(x + strength * noise[..., None].astype(self.dtype) + spread(bias[None], d))


class StyledLinear(nn.Module):
    """toRGB of equation (5), which is modulated by (2) alone: x [B, *n, C], style [B, W] -> [B, *n, features]."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, style: Array) -> Array:
        s = Linear(x.shape[-1], bias=1.0, dtype=self.dtype)(style)
        return Linear(self.features, dtype=self.dtype)(x * spread(s, x.ndim - 2))


def scaled_kernel(module: nn.Module, taps: Sequence[int], inputs: int, start: float = 1.0) -> Array:
    """The kernel [*taps, inputs, features] of a module, over the root of its fan-in; it begins at N(0, start^2)."""
    flat = (math.prod(taps) * inputs, module.features)  # drawn flat, as in `ConvOnCells`
    kernel = module.param("kernel", nn.initializers.normal(start), flat) / math.sqrt(flat[0])
    return kernel.reshape(*taps, inputs, module.features)


def taps(moves: Sequence[bool], resizes: bool) -> list[int]:
    """Of a kernel: 3, but 1 along axes of one cell where the others change their size."""
    return [3 if move or not resizes else 1 for move in moves]


def demodulation(kernel: Array, s: Array) -> Array:
    """What makes (3) of (2) for each output: kernel [*k, C, O], s [B, C] -> [B, O]; float32 or better."""
    squares = (kernel**2).reshape(-1, *kernel.shape[-2:]).sum(0)
    return 1 / jnp.sqrt(s.astype(squares.dtype) ** 2 @ squares + EPS)


def convolved(x: Array, kernel: Array) -> Array:
    """A convolution of kernel 3 that keeps the size, or without space a product."""
    d = x.ndim - 2
    return conv(x, kernel, [(1, 1)] * d) if d else x @ kernel


def filtered(x: Array, axis: int, pad: tuple[int, int]) -> Array:
    """The filter [1, 3, 3, 1] / 8 along an axis, after that many zeros before and behind."""
    x = jnp.pad(x, [pad if i == axis else (0, 0) for i in range(x.ndim)])
    n = x.shape[axis] - 3
    a, b, c, d = (jax.lax.slice_in_dim(x, i, i + n, axis=axis) for i in range(4))
    return (a + 3 * b + 3 * c + d) / 8


def activated(x: Array) -> Array:
    """lrelu(x) sqrt(2), which keeps the variance of normal numbers about as it is."""
    return nn.leaky_relu(x, SLOPE) * GAIN
