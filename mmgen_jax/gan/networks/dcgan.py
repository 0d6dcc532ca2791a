"""DCGAN's networks (Radford et al. 2016, arXiv:1511.06434), for any size and number of axes of space.

Generator: linear, then transposed convolutions of kernel 4 and stride 2, each after a norm and ReLU. Critic: the same
backwards, with LeakyReLU. Small, and quick on a CPU. Two things are not as published: the generator normalises each
cell by itself (RMS) rather than the batch, so that an example does not depend on those made with it, and the critic not
at all, as penalties on its slopes ask for. Where there is no space, there are linear layers alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import RMSNorm
from mmgen_jax.nn.conv import Down, Up, halvings, strides_between
from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class DCGAN:
    """The networks of a modality; its `features` are the width after the first halving, from which it doubles.

    Attributes:
        growth: but to no more than so many times that.
    """

    growth: int = 8

    def __post_init__(self) -> None:
        if self.growth < 1:
            raise ValueError(f"DCGAN: growth is {self.growth}, but must be at least 1")

    def generator(self, shape: Sequence[int], features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> [B, *shape]."""
        return Generator(tuple(shape), features, self.growth, dtype)

    def critic(self, outputs: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        return Critic(outputs, features, self.growth, dtype)


class Generator(nn.Module):
    """Code [B, Z] -> [B, *shape]."""

    shape: tuple[int, ...]
    features: int
    growth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, code: Array) -> Array:
        *space, channels = self.shape
        sizes = halvings(space)[::-1] if space else [()]
        widths = [self.features * min(2**i, self.growth) for i in range(len(sizes) - 1)][::-1]
        x = nn.relu(nn.Dense(4 * self.features, dtype=self.dtype)(code))
        x = nn.Dense(math.prod(sizes[0]) * (widths or [channels])[0], dtype=self.dtype)(x)
        x, last = x.reshape(len(x), *sizes[0], -1), batch_last.preferred()
        x = batch_last.turned(x, last)
        for size, width in zip(sizes[1:], [*widths[1:], channels], strict=False):
            x = Up(width, size, self.dtype, last=last)(nn.relu(RMSNorm(self.dtype, last)(x)))
        return batch_last.turned(x, last)


class Critic(nn.Module):
    """[B, *space, C] -> [B, outputs]."""

    outputs: int
    features: int
    growth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.astype(self.dtype)
        sizes, last = halvings(x.shape[1:-1]) if x.ndim > 2 else [()], batch_last.preferred()
        x = batch_last.turned(x, last)
        for i, (large, small) in enumerate(itertools.pairwise(sizes)):
            width = self.features * min(2**i, self.growth)
            x = nn.leaky_relu(Down(width, strides_between(large, small), self.dtype, last=last)(x), 0.2)
        x = batch_last.turned(x, last)
        x = x.reshape(len(x), -1)
        x = nn.leaky_relu(nn.Dense(4 * self.features, dtype=self.dtype)(x), 0.2)
        return nn.Dense(self.outputs, dtype=self.dtype)(x)
