"""WaveGAN's networks (Donahue et al. 2019, arXiv:1802.04208): DCGAN for waveforms, with steps of four and long kernels.

Generator: linear, then transposed convolutions of kernel 25 and stride 4, each after ReLU. Critic: the same backwards,
with LeakyReLU and, but for the last, phase shuffle:

    y_p = x_{p + s},    s one of -n..n, the same for all channels, reflected at the ends                      (1)

A transposed convolution leaves a faint tone of which a critic learns the phase; after (1) it cannot. Neither player has
norms. Along d axes the kernel has 25^(1/d) taps and the stride is 4^(1/d), rounded: 5 and 2 for pictures, as in the
paper's SpecGAN. The smallest size is stride^2 along an axis, 16 for sounds.

Two things are not as published: shifts are drawn anew for every example, not once for the batch; and the generator is
linear at the end, since not all modalities lie between -1 and 1. Where no step can be made, as without space, there is
a hidden layer instead. Published for 16,384 samples: `mm.Audio(16384, features=64)` and
`GAN(networks=WaveGAN(), loss=Wasserstein(), penalties=(WGANGP(),), critic_steps=5)`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.gan.networks import RANDOM
from mmgen_jax.nn.strided import strided, transposed
from mmgen_jax.types import Array, Key

TAPS, STEP = 25, 4  # of a kernel and its stride, over all axes of space
SLOPE = 0.2


@dataclasses.dataclass(frozen=True)
class WaveGAN:
    """The networks of a modality; its `features` are the width after the first step, from which it doubles.

    Attributes:
        shuffle: n of (1); 0 for none.
        growth: the width grows to no more than so many times the modality's.
    """

    shuffle: int = 2
    growth: int = 32

    def __post_init__(self) -> None:
        for field, least in (("shuffle", 0), ("growth", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"WaveGAN: {field} is {getattr(self, field)}, but must be at least {least}")

    def generator(self, shape: Sequence[int], features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> [B, *shape]."""
        return Generator(self, tuple(shape), features, dtype)

    def critic(self, outputs: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        return Critic(self, outputs, features, dtype)

    def widths(self, steps: int, features: int) -> list[int]:
        """After each step from full size down."""
        return [features * min(2**i, self.growth) for i in range(steps)]


class Generator(nn.Module):
    """Code [B, Z] -> [B, *shape]."""

    form: WaveGAN
    shape: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, code: Array) -> Array:
        *space, channels = self.shape
        sizes = stages(space)[::-1]
        widths = [channels, *self.form.widths(len(sizes) - 1, self.features)][::-1]
        x = code.astype(self.dtype)
        if len(sizes) == 1:
            x = nn.relu(nn.Dense(4 * self.features, dtype=self.dtype)(x))
        x = nn.Dense(math.prod(sizes[0]) * widths[0], dtype=self.dtype)(x).reshape(len(x), *sizes[0], widths[0])
        for size, width in zip(sizes[1:], widths[1:], strict=True):
            x = Step(width, size, self.dtype)(nn.relu(x))
        return x


class Critic(nn.Module):
    """[B, *space, C] -> [B, outputs]; phases are shuffled where there are random numbers for it."""

    form: WaveGAN
    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.astype(self.dtype)
        _, *sizes = stages(x.shape[1:-1])
        for i, (size, width) in enumerate(zip(sizes, self.form.widths(len(sizes), self.features), strict=True)):
            if i and self.form.shuffle and self.has_rng(RANDOM):
                x = shuffled(self.make_rng(RANDOM), x, self.form.shuffle)
            x = nn.leaky_relu(Step(width, size, self.dtype)(x), SLOPE)
        x = x.reshape(len(x), -1)
        if not sizes:
            x = nn.leaky_relu(nn.Dense(4 * self.features, dtype=self.dtype)(x), SLOPE)
        return nn.Dense(self.outputs, dtype=self.dtype)(x)


class Step(nn.Module):
    """A convolution down to `size`, or a transposed one up to it: [B, *n, C] -> [B, *size, features].

    An axis of one cell that stays so has a kernel and a stride of one.
    """

    features: int
    size: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        taps, step = kernel_and_stride(len(self.size))
        moves = [n != m for n, m in zip(x.shape[1:-1], self.size, strict=True)]
        taps, steps = ([n if move else 1 for move in moves] for n in (taps, step))
        before = [(k - s) // 2 for k, s in zip(taps, steps, strict=True)]
        flat = (math.prod(taps) * x.shape[-1], self.features)  # drawn flat, as in `ConvOnCells`
        kernel = self.param("kernel", nn.initializers.lecun_normal(), flat).astype(self.dtype)
        kernel = kernel.reshape(*taps, x.shape[-1], self.features)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        if math.prod(self.size) < math.prod(x.shape[1:-1]):
            y = strided(x, kernel, steps, before)
        else:
            y = transposed(x, kernel, steps, before, self.size)
        return y + jnp.broadcast_to(bias, y.shape)


def kernel_and_stride(d: int) -> tuple[int, int]:
    """Along each of d axes of space."""
    return round(TAPS ** (1 / d)), max(2, round(STEP ** (1 / d)))


def stages(space: Sequence[int]) -> list[tuple[int, ...]]:
    """The sizes from `space` down; that alone where it is small, or nothing."""
    sizes = [tuple(space)]
    _, step = kernel_and_stride(max(len(sizes[0]), 1))
    while max(sizes[-1], default=0) > step**2:
        sizes.append(tuple(-(-n // step) for n in sizes[-1]))
    return sizes


def shuffled(key: Key, x: Array, most: int) -> Array:
    """Equation (1) of x [B, *space, C], with a shift for each example and axis."""

    def moved(x: Array, shifts: Array) -> Array:
        for axis, s in enumerate(shifts):
            x = jnp.take(x, reflected(jnp.arange(x.shape[axis]) + s, x.shape[axis]), axis=axis)
        return x

    return jax.vmap(moved)(x, jax.random.randint(key, (len(x), x.ndim - 2), -most, most + 1))


def reflected(place: Array, n: int) -> Array:
    """Places beyond 0..n-1 as these are seen in mirrors at both ends."""
    away = place % max(2 * (n - 1), 1)
    return jnp.minimum(away, 2 * (n - 1) - away)
