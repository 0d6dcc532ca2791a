"""pix2pix's network (Isola et al. 2017, arXiv:1611.07004), for any size and number of axes of space.

    e_0 = down(x),   e_i = n(down(lrelu(e_{i-1})))                               kernels of 4, stride 2           (1)
    d_i = [n(up(relu(d_{i+1}))); e_{i-1}],   y = up(relu(d_0))                   as many steps back              (2)

n takes each channel of an example to mean 0 and deviation 1, as batches of one did there. What source and target have
in common at a place goes straight across, [.; .]. Two things are not as published: steps end where no axis is longer
than 4, and noise, if any, is a code beside e at the smallest size, not dropout.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import GroupNorm
from mmgen_jax.nn.conv import Down, Up, halvings, strides_between
from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class UNet:
    """The network to a modality; its `features` are the width after the first step, from which it doubles.

    Attributes:
        growth: but to no more than so many times that.
    """

    growth: int = 8

    def __post_init__(self) -> None:
        if self.growth < 1:
            raise ValueError(f"UNet: growth is {self.growth}, but must be at least 1")

    def translator(self, channels: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *space, C] and a code [B, Z] -> [B, *space, channels]."""
        return Network(channels, features, self.growth, dtype)


class Network(nn.Module):
    """Equations (1) and (2)."""

    channels: int
    features: int
    growth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, code: Array) -> Array:
        sizes = halvings(x.shape[1:-1])
        widths = [self.features * min(2**i, self.growth) for i in range(len(sizes) - 1)]
        last, crossing = batch_last.preferred(), []
        h = batch_last.turned(x.astype(self.dtype), last)
        for i, (large, small) in enumerate(itertools.pairwise(sizes)):
            down = Down(widths[i], strides_between(large, small), self.dtype, last=last)
            h = down(nn.leaky_relu(h, 0.2) if i else h)
            h = GroupNorm(None, self.dtype, last)(h) if i else h
            crossing.append(h)
        h = with_code(h, code, last)
        for size, width, e in zip(sizes[-2:0:-1], widths[-2::-1], crossing[-2::-1], strict=True):
            h = Up(width, size, self.dtype, last=last)(nn.relu(h))
            h = jnp.concatenate([GroupNorm(None, self.dtype, last)(h), e], axis=0 if last else -1)
        return batch_last.turned(Up(self.channels, sizes[0], self.dtype, last=last)(nn.relu(h)), last)


def with_code(x: Array, code: Array, last: bool) -> Array:
    """x [B, *space, C], or [C, *space, B] if `last`, with a code [B, Z] beside the channels of every place."""
    code = code.astype(x.dtype).reshape(len(code), *(1,) * (x.ndim - 2), -1)
    code = jnp.broadcast_to(code, (len(code), *x.shape[1:-1], code.shape[-1]))
    return jnp.concatenate([x, batch_last.turned(code, last)], axis=0 if last else -1)
