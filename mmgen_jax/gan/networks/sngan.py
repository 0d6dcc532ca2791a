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

from mmgen_jax.materialized import materialized
from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import Dense, RMSNorm
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
        code, last = code.astype(self.dtype), batch_last.preferred()
        x = nn.Dense(math.prod(size) * width, dtype=self.dtype)(code).reshape(len(code), *size, width)
        x = batch_last.turned(x, last)
        for size, width in reversed(larger):
            x = UpBlock(size, width, self.dtype, last)(x, code)
        x = nn.relu(ModulatedNorm(self.dtype, last)(x, code))
        return batch_last.turned(conv3(self.shape[-1], self.dtype, len(size), last)(x), last)


class Critic(nn.Module):
    """[B, *space, C] -> [B, outputs]."""

    form: SNGAN
    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        last = batch_last.preferred()
        x, widths = x.astype(self.dtype), [width for _, width in stages(x.shape[1:-1], self.features, self.form.growth)]
        x = batch_last.turned(x, last)
        for i, width in enumerate([*widths[1:], widths[-1]]):
            ends = i + 1 == len(widths)
            if ends and self.form.group:
                x = with_deviation(x, self.form.group, last)
            x = DownBlock(width, halves=not ends, first=i == 0, dtype=self.dtype, last=last)(x)
        return nn.Dense(self.outputs, dtype=self.dtype)(summed(x, last))


class UpBlock(nn.Module):
    """Equation (1), x [B, *m, C] and code [B, Z] -> [B, *size, features]; if `last`, the batch is the last axis."""

    size: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array, code: Array) -> Array:
        d = len(self.size)
        h = doubled(nn.relu(ModulatedNorm(self.dtype, self.last)(x, code)), self.size)
        h = conv3(self.features, self.dtype, d, self.last)(h)
        h = nn.relu(ModulatedNorm(self.dtype, self.last)(h, code))
        h = conv3(self.features, self.dtype, d, self.last)(h)
        return materialized(doubled(Dense(self.features, self.dtype, self.last)(x), self.size) + h)


class DownBlock(nn.Module):
    """Equation (2), [B, *n, C] -> [B, *m, features]; if `last`, the batch is the last axis."""

    features: int
    halves: bool
    first: bool
    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = conv3(self.features, self.dtype, x.ndim - 2, self.last)(x if self.first else nn.relu(x))
        h = conv3(self.features, self.dtype, x.ndim - 2, self.last)(nn.relu(h))
        h = h + Dense(self.features, self.dtype, self.last)(x)
        return materialized(halved(h) if self.halves else h)


class ModulatedNorm(nn.Module):
    """Equation (3), x as of `UpBlock` and code [B, Z] -> the same shape as x."""

    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array, code: Array) -> Array:
        channels = x.shape[0 if self.last else -1]
        scale, shift = (
            nn.Dense(channels, kernel_init=nn.initializers.normal(0.02), dtype=self.dtype, name=name)(code)
            for name in ("scale", "shift")
        )
        scale, shift = (y.reshape(len(y), *(1,) * (x.ndim - 2), -1) for y in (scale, shift))
        scale, shift = (batch_last.turned(y, self.last) for y in (scale, shift))
        return (1 + scale) * RMSNorm(self.dtype, self.last, scaled=False)(x) + shift


def stages(space: Sequence[int], features: int, growth: int) -> list[tuple[tuple[int, ...], int]]:
    """(size, width) from `space` down; one stage where there is no space."""
    sizes = halvings(space) if space else [()]
    return [(size, features * min(2**i, growth)) for i, size in enumerate(sizes)]


def conv3(features: int, dtype: Any, d: int, last: bool) -> nn.Module:
    """Kernel 3 along each of d axes of space, which keep their sizes."""
    return ConvOnCells(features, (3,) * d, [(1, 1)] * d, dtype, last) if d else Dense(features, dtype, last)


def summed(x: Array, last: bool) -> Array:
    """What is positive of x, summed over space: [B, *space, C], or [C, *space, B] if `last`, -> [B, C]."""
    return batch_last.turned(nn.relu(x).sum(tuple(range(1, x.ndim - 1))), last)


def doubled(x: Array, size: Sequence[int]) -> Array:
    """Each cell of x [., *m, .] twice along each axis that is to be longer: [., *size, .]."""
    for axis, n in enumerate(size, start=1):
        if n > x.shape[axis]:
            x = jax.lax.slice_in_dim(jnp.repeat(x, 2, axis=axis), 0, n, axis=axis)
    return x


def halved(x: Array, reduce: Callable[[Array, Array], Array] = lambda a, b: (a + b) / 2) -> Array:
    """The mean of two cells, or of a lone last one, along each axis: [., *n, .] -> [., *ceil(n / 2), .].

    reduce: jnp.maximum for the larger one in place of the mean.
    """
    for axis in range(1, x.ndim - 1):
        if (n := x.shape[axis]) > 1:
            if n % 2:
                x = jnp.concatenate([x, jax.lax.slice_in_dim(x, n - 1, n, axis=axis)], axis)
            pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
            x = reduce(*(jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)))
    return x


def with_deviation(x: Array, group: int, last: bool = False) -> Array:
    """x [B, *space, C], or [C, *space, B] if `last`, with (4) of each example's group, `group` examples or fewer, as
    one more channel."""
    batch, channels = (x.ndim - 1, 0) if last else (0, x.ndim - 1)
    size = math.gcd(group, x.shape[batch])
    wide = jnp.moveaxis(x.astype(jnp.promote_types(x.dtype, jnp.float32)), batch, 0)
    parts = wide.reshape(size, x.shape[batch] // size, -1)
    deviation = jnp.sqrt(parts.var(0) + 1e-8).mean(-1).astype(x.dtype)  # [B / size]; the root has a gradient at 0
    one = jnp.tile(deviation, size).reshape([-1 if axis == batch else 1 for axis in range(x.ndim)])
    one = jnp.broadcast_to(one, [1 if axis == channels else n for axis, n in enumerate(x.shape)])
    return jnp.concatenate([x, one], axis=channels)
