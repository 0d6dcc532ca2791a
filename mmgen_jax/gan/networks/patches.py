"""PatchGAN's critic (Isola et al. 2017, arXiv:1611.07004): a value for each patch of an example, not for the whole.

    f_0 = lrelu(conv4/2 x),   f_i = lrelu(n(conv4/2 f_{i-1})),   f_L = lrelu(n(conv4 f_{L-1})),   D = conv4 f_L      (1)

n takes each channel of an example to mean 0 and deviation 1. With L = 3 a value sees 70 x 70 pixels. Several critics
may look at the example at full, half, ... size (Wang et al. 2018, arXiv:1711.11585); what they see on the way, f, is
what made and real examples are compared by in feature matching.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.gan.networks.sngan import halved
from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import GroupNorm
from mmgen_jax.nn.conv import ConvOnCells, Down
from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Patches:
    """The critic of a modality; its `features` are the width of f_0, from which it doubles up to eight times.

    Attributes:
        layers: L, that halve.
        scales: how many critics there are, each at half the size of the one before.
    """

    layers: int = 3
    scales: int = 1

    def __post_init__(self) -> None:
        for field in ("layers", "scales"):
            if getattr(self, field) < 1:
                raise ValueError(f"Patches: {field} is {getattr(self, field)}, but must be at least 1")

    def critic(self, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *space, C] -> for each scale [f_0, ..., f_L, D]; D is [B, *patches, 1]."""
        return Critics(features, self.layers, self.scales, dtype)


class Critics(nn.Module):
    """Equation (1) at every scale."""

    features: int
    layers: int
    scales: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> list[list[Array]]:
        last, found = batch_last.preferred(), []
        x = batch_last.turned(x.astype(self.dtype), last)
        for i in range(self.scales):
            x = halved(x) if i else x
            found.append([batch_last.turned(y, last) for y in self._seen(x, last)])
        return found

    def _seen(self, x: Array, last: bool) -> list[Array]:
        d, found = x.ndim - 2, []
        for i in range(self.layers + 1):
            width = self.features * min(2**i, 8)
            halves = i < self.layers
            strides = tuple(2 if n > 1 else 1 for n in x.shape[1:-1])
            down = halves and Down(width, strides, self.dtype, last=last)
            x = (down or kernel4(width, d, self.dtype, last))(x)
            x = nn.leaky_relu(GroupNorm(None, self.dtype, last)(x) if i else x, 0.2)
            found.append(x)
        return [*found, kernel4(1, d, self.dtype, last)(x)]


def kernel4(features: int, d: int, dtype: Any, last: bool) -> nn.Module:
    """A convolution with kernel 4 that keeps the size."""
    return ConvOnCells(features, (4,) * d, [(1, 2)] * d, dtype, last)
