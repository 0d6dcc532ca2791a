"""CycleGAN's network (Zhu et al. 2017, arXiv:1703.10593; Johnson et al. 2016), for any number of axes of space.

    wide convolution, two steps down, blocks x + n(conv3 r(n(conv3 x))), two steps up, wide convolution          (1)

r is ReLU; n takes each channel of an example to mean 0 and deviation 1, and follows every convolution but the last. The
wide ones have kernels of 7. Not as published: steps have kernels of 4, edges are filled with zeros, and noise, if any,
is a code beside the channels of the blocks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.gan.networks.sngan import conv3
from mmgen_jax.gan.networks.unet import with_code
from mmgen_jax.materialized import materialized
from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import GroupNorm
from mmgen_jax.nn.conv import ConvOnCells, Down, Up, strides_between
from mmgen_jax.types import Array

STEPS = 2  # down, and up again


@dataclasses.dataclass(frozen=True)
class ResNet:
    """The network to a modality; its `features` are the width at full size.

    Attributes:
        blocks: between the steps; as published, 6 at 128 x 128 and 9 above.
    """

    blocks: int = 9

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"ResNet: blocks is {self.blocks}, but must be at least 1")

    def translator(self, channels: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *space, C] and a code [B, Z] -> [B, *space, channels]."""
        return Network(channels, features, self.blocks, dtype)


class Network(nn.Module):
    """Equation (1)."""

    channels: int
    features: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, code: Array) -> Array:
        space, last = x.shape[1:-1], batch_last.preferred()
        d = len(space)

        def wide(features: int) -> nn.Module:
            return ConvOnCells(features, (7,) * d, [(3, 3)] * d, self.dtype, last)

        def normal(h: Array) -> Array:
            return GroupNorm(None, self.dtype, last)(h)

        h, sizes = nn.relu(normal(wide(self.features)(batch_last.turned(x, last)))), [space]
        for i in range(STEPS):
            sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
            width, strides = self.features * 2 ** (i + 1), strides_between(sizes[-2], sizes[-1])
            h = nn.relu(normal(Down(width, strides, self.dtype, last=last)(h)))
        for _ in range(self.blocks):
            inside = nn.relu(normal(conv3(width, self.dtype, d, last)(with_code(h, code, last))))
            h = materialized(h + normal(conv3(width, self.dtype, d, last)(inside)))
        for i in reversed(range(STEPS)):
            h = nn.relu(normal(Up(self.features * 2**i, sizes[i], self.dtype, last=last)(h)))
        return batch_last.turned(wide(self.channels)(h), last)
