"""SNGAN's residual networks (Miyato et al. 2018, arXiv:1802.05957), for any size and number of axes of space.

    generator block    y = up(x) W + conv3 a(n2(conv3 up(a(n1(x)))))                                           (1)
    critic block       y = down(x W + conv3 a(conv3 a(x)))                                                     (2)
    norm               n(x) = (1 + A c) x / rms(x) + B c                          c the code                   (3)
    deviation          s = mean over places and channels of std over a group of examples                       (4)

a is ReLU, up copies each cell into two along each axis, down takes the mean of two, W is linear. The generator begins
with a linear layer and ends with n, a, conv3; the critic begins with a block whose first a is left out, and ends with
a block that does not halve, the sum over places and a linear layer. Its kernels are to be divided by their spectral
norms: `GAN(networks=SNGAN(), spectral="critic", loss=Hinge(), penalties=())`.

Three things are not as published. (3) normalises each cell by itself rather than the batch, and scale and shift follow
the code, as in Chen et al. 2019 (arXiv:1810.01365) and BigGAN (Brock et al. 2019, arXiv:1809.11096): so what is given
reaches every layer, as with conditional batch norm. The critic halves down to the cells at which the generator begins.
And (4), by which a critic sees that examples are alike, is that of Karras et al. 2018 (arXiv:1710.10196, section 3).
Where there is no space, linear layers stand for the convolutions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.nn.conv import ConvOnCells, halvings
from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class SNGAN:
    """The networks of a modality; its `features` are the critic's width at full size.

    Attributes:
        growth: the width doubles with every halving until it is so many times that; as published, 1 up to 32 x 32.
        wider: how many times as wide the generator is; as published, 2 up to 32 x 32.
        group: examples whose deviation (4) the critic sees, fewer where the batch is no multiple; 0 for none. With it
            what the critic says of an example depends on the others of the batch.
    """

    growth: int = 1
    wider: int = 1
    group: int = 0

    def __post_init__(self) -> None:
        for field, least in (("growth", 1), ("wider", 1), ("group", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"SNGAN: {field} is {getattr(self, field)}, but must be at least {least}")

    def generator(self, shape: Sequence[int], features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> [B, *shape]."""
        return Generator(self, tuple(shape), self.wider * features, dtype)

    def critic(self, outputs: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        return Critic(self, outputs, features, dtype)


class Generator(nn.Module):
    """Code [B, Z] -> [B, *shape]."""

    form: SNGAN
    shape: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, code: Array) -> Array:
        *larger, (size, width) = stages(self.shape[:-1], self.features, self.form.growth)
        code = code.astype(self.dtype)
        x = nn.Dense(math.prod(size) * width, dtype=self.dtype)(code).reshape(len(code), *size, width)
        for size, width in reversed(larger):
            x = UpBlock(size, width, self.dtype)(x, code)
        return conv3(self.shape[-1], self.dtype, x)(nn.relu(ModulatedNorm(self.dtype)(x, code)))


class Critic(nn.Module):
    """[B, *space, C] -> [B, outputs]."""

    form: SNGAN
    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.astype(self.dtype)
        widths = [width for _, width in stages(x.shape[1:-1], self.features, self.form.growth)]
        for i, width in enumerate([*widths[1:], widths[-1]]):
            last = i + 1 == len(widths)
            if last and self.form.group:
                x = with_deviation(x, self.form.group)
            x = DownBlock(width, halves=not last, first=i == 0, dtype=self.dtype)(x)
        x = nn.relu(x).sum(tuple(range(1, x.ndim - 1)))
        return nn.Dense(self.outputs, dtype=self.dtype)(x)


class UpBlock(nn.Module):
    """Equation (1), x [B, *m, C] and code [B, Z] -> [B, *size, features]."""

    size: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, code: Array) -> Array:
        h = doubled(nn.relu(ModulatedNorm(self.dtype)(x, code)), self.size)
        h = conv3(self.features, self.dtype, h)(h)
        h = conv3(self.features, self.dtype, h)(nn.relu(ModulatedNorm(self.dtype)(h, code)))
        # Without the barrier XLA on CPU recomputes the whole residual chain inside every later block.
        return jax.lax.optimization_barrier(doubled(nn.Dense(self.features, dtype=self.dtype)(x), self.size) + h)


class DownBlock(nn.Module):
    """Equation (2), [B, *n, C] -> [B, *m, features]."""

    features: int
    halves: bool
    first: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = conv3(self.features, self.dtype, x)(x if self.first else nn.relu(x))
        h = conv3(self.features, self.dtype, h)(nn.relu(h)) + nn.Dense(self.features, dtype=self.dtype)(x)
        return jax.lax.optimization_barrier(halved(h) if self.halves else h)


class ModulatedNorm(nn.Module):
    """Equation (3), x [B, *space, C] and code [B, Z] -> the same shape as x."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, code: Array) -> Array:
        scale, shift = (
            nn.Dense(x.shape[-1], kernel_init=nn.initializers.normal(0.02), dtype=self.dtype, name=name)(code)
            for name in ("scale", "shift")
        )
        scale, shift = (y.reshape(len(x), *(1,) * (x.ndim - 2), -1) for y in (scale, shift))
        return (1 + scale) * nn.RMSNorm(use_scale=False, dtype=self.dtype)(x) + shift


def stages(space: Sequence[int], features: int, growth: int) -> list[tuple[tuple[int, ...], int]]:
    """(size, width) from `space` down; one stage where there is no space."""
    sizes = halvings(space) if space else [()]
    return [(size, features * min(2**i, growth)) for i, size in enumerate(sizes)]


def conv3(features: int, dtype: Any, x: Array) -> nn.Module:
    """Kernel 3 along each axis of space of x, which keeps its size."""
    d = x.ndim - 2
    return ConvOnCells(features, (3,) * d, [(1, 1)] * d, dtype) if d else nn.Dense(features, dtype=dtype)


def doubled(x: Array, size: Sequence[int]) -> Array:
    """Each cell of x [B, *m, C] twice along each axis that is to be longer: [B, *size, C]."""
    for axis, n in enumerate(size, start=1):
        if n > x.shape[axis]:
            x = jax.lax.slice_in_dim(jnp.repeat(x, 2, axis=axis), 0, n, axis=axis)
    return x


def halved(x: Array, reduce: Callable[..., Array] = jnp.mean) -> Array:
    """The mean of two cells, or of a lone last one, along each axis: [B, *n, C] -> [B, *ceil(n / 2), C].

    reduce: jnp.max for the larger one in place of the mean.
    """
    for axis in range(1, x.ndim - 1):
        if (n := x.shape[axis]) > 1:
            x = jnp.pad(x, [(0, n % 2) if i == axis else (0, 0) for i in range(x.ndim)], mode="edge")
            x = reduce(x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :]), axis=axis + 1)
    return x


def with_deviation(x: Array, group: int) -> Array:
    """x [B, *space, C] with (4) of each example's group, `group` examples or fewer, as one more channel."""
    size = math.gcd(group, len(x))
    parts = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(size, len(x) // size, -1)
    deviation = jnp.sqrt(parts.var(0) + 1e-8).mean(-1).astype(x.dtype)  # [B / size]; the root has a gradient at 0
    channel = jnp.tile(deviation, size).reshape(len(x), *(1,) * (x.ndim - 1))
    return jnp.concatenate([x, jnp.broadcast_to(channel, (*x.shape[:-1], 1))], axis=-1)
