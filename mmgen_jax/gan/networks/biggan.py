"""BigGAN's networks (Brock et al. 2019, arXiv:1809.11096), for any size and number of axes of space.

SNGAN's blocks (`sngan.py`), whose norms are modulated by a code that says what is to be made (there the embedding of a
class, here whatever is given) and by noise of their own, which differs from block to block:

    x_l = block_l(x_{l-1}; [c; z_l]),    z_l ~ N(0, 1)                                                        (1)

and in both players, at one size, attention of all places to all others (Zhang et al. 2019, arXiv:1805.08318),

    y = x + g W_o softmax(W_q x (pool W_k x)^T) pool W_v x,    g = 0 at first                                 (2)

W_q and W_k to an eighth of the channels, W_v to half, pool the larger of two cells along each axis. Kernels of both are
to be divided by their spectral norms: `GAN(networks=BigGAN(), spectral="both", loss=Hinge(), penalties=())`.

Not as published: (3) of `sngan.py` stands for the norm over the batch; kernels do not begin orthogonal; the linear
layer at the beginning sees the code too; and shortcuts have weights where they need none. Published for 128 pixels:
width 96, growth 16, noise 20 a block.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.gan.networks.sngan import DownBlock, UpBlock, conv3, halved, stages, summed
from mmgen_jax.nn import batch_last
from mmgen_jax.nn.attention import plain_attention
from mmgen_jax.nn.channels import Dense, RMSNorm
from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class BigGAN:
    """The networks of a modality; its `features` are the width at full size.

    Attributes:
        growth: the width doubles with every halving until it is so many times that.
        chunk: numbers of noise for each block, z_l of (1).
        attention: (2) stands at the largest size of at most so many cells which is neither the first nor the last;
            0 for none. As published, 64 x 64.
    """

    growth: int = 16
    chunk: int = 20
    attention: int = 4096

    def __post_init__(self) -> None:
        for field, least in (("growth", 1), ("chunk", 1), ("attention", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"BigGAN: {field} is {getattr(self, field)}, but must be at least {least}")

    def generator(self, shape: Sequence[int], features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] and noise [B, chunk] for each block -> [B, *shape]."""
        return Generator(self, tuple(shape), features, dtype)

    def critic(self, outputs: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        return Critic(self, outputs, features, dtype)

    def noise(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """z_l of each block, from the smallest size up."""
        return ((self.chunk,),) * (len(stages(shape[:-1], 1, 1)) - 1)

    def attends(self, space: Sequence[int]) -> int | None:
        """The number of halvings after which there is attention."""
        between = list(enumerate(size for size, _ in stages(space, 1, 1)))[1:-1]
        return next((i for i, size in between if math.prod(size) <= self.attention), None)


class Generator(nn.Module):
    """Code [B, Z], noise [B, chunk] of each block -> [B, *shape]."""

    form: BigGAN
    shape: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, code: Array, *noise: Array) -> Array:
        space = self.shape[:-1]
        *larger, (size, width) = stages(space, self.features, self.form.growth)
        code, last = code.astype(self.dtype), batch_last.preferred()
        x = nn.Dense(math.prod(size) * width, dtype=self.dtype)(code).reshape(len(code), *size, width)
        x = batch_last.turned(x, last)
        for i, z in zip(reversed(range(len(larger))), noise, strict=True):
            size, width = larger[i]
            x = UpBlock(size, width, self.dtype, last)(x, jnp.concatenate([code, z.astype(self.dtype)], axis=-1))
            if i == self.form.attends(space):
                x = SelfAttention(self.dtype, last)(x)
        x = nn.relu(RMSNorm(self.dtype, last)(x))
        return batch_last.turned(conv3(self.shape[-1], self.dtype, len(space), last)(x), last)


class Critic(nn.Module):
    """[B, *space, C] -> [B, outputs]."""

    form: BigGAN
    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        space, last = x.shape[1:-1], batch_last.preferred()
        x = batch_last.turned(x.astype(self.dtype), last)
        widths = [width for _, width in stages(space, self.features, self.form.growth)]
        for i, width in enumerate(widths):
            x = DownBlock(width, halves=i + 1 < len(widths), first=i == 0, dtype=self.dtype, last=last)(x)
            if i + 1 == self.form.attends(space):
                x = SelfAttention(self.dtype, last)(x)
        return nn.Dense(self.outputs, dtype=self.dtype)(summed(x, last))


class SelfAttention(nn.Module):
    """Equation (2), x [B, *space, C], or [C, *space, B] if `last`, -> the same shape."""

    dtype: Any = jnp.float32
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[0 if self.last else -1]

        def linear(name: str, features: int) -> Dense:
            return Dense(max(1, features), self.dtype, self.last, bias=False, name=name)

        def rows(x: Array) -> Array:
            x = batch_last.turned(x, self.last)
            return x.reshape(len(x), -1, 1, x.shape[-1])  # one head

        q = rows(linear("query", channels // 8)(x))
        k, v = (rows(halved(linear(n, channels // c)(x), jnp.maximum)) for n, c in (("key", 8), ("value", 2)))
        y = plain_attention(q, k, v, None, None, False, 1.0)
        y = batch_last.turned(y.reshape(len(y), *x.shape[1:-1], -1), self.last)
        gate = self.param("gate", nn.initializers.zeros, ()).astype(self.dtype)
        return x + gate * linear("out", channels)(y)
