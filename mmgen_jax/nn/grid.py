"""Networks of an autoencoder whose code is itself a small picture, of which the flow over codes takes patches.

    encoder    h <- conv(fold(x)),  then for each width: h <- blocks(h), halved before all but the first           (1)
               mean, raw = conv(silu(norm(h))),  [h, w, c] each, written row by row
    decoder    the same backwards, doubled after all but the last                                            (2)
    block      h + conv(silu(norm(conv(silu(norm(h))))))                                                     (3)

The plan of latent diffusion (Rombach et al. 2022, arXiv:2112.10752) without attention, for spaces of any dimension and
size. They are passed as a user's own networks; the model's code must have as many numbers as the grid:

    Image(256, 256, 3, encoder=GridEncoder(), decoder=GridDecoder((256, 256, 3)))        VAE(latent=32 * 32 * 4)

Clips can be coded without looking ahead, so that the code of how one begins is how its code begins: with `causal`,
kernels reach into the past alone, and the norm is of the channels of each cell by itself (Wan 2025, arXiv:2503.20314).

To fold is to take blocks of cells as the channels of one, which makes both many times as fast, and a little coarser.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.nn import batch_last
from mmgen_jax.nn.channels import Dense, GroupNorm, RMSNorm
from mmgen_jax.nn.conv import Down, Up, depth_to_space, filled, space_to_depth, strides_between
from mmgen_jax.nn.parts import in_parts
from mmgen_jax.nn.polymnist import Conv3, halved
from mmgen_jax.types import Array


class GridEncoder(nn.Module):
    """Network (1), [B, *space, C] -> [B, outputs]: mean and raw scale of every number of the grid.

    Attributes:
        channels: c of the grid, whose space is that of x, folded and then halved (rounding up) once less than there
            are widths.
        widths: of the layers at each size.
        blocks: how many at each size.
        fold: cells along each axis that are taken as one.
        parts: 1 for the numbers of the grid alone, as a tokenizer has them, without a raw scale.
        causal: whether along the first axis of space, which is the time of clips, no cell depends on later ones.
        outputs, dtype: set by the modality.

    Raises:
        ValueError: `outputs` are not `parts` for each number of the grid.
    """

    channels: int = 4
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    fold: int = 1
    parts: int = 2
    causal: bool = False
    outputs: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        folds = (self.fold,) * (x.ndim - 2)
        x = space_to_depth(filled(x, folds), folds)
        sizes = halved(x.shape[1:-1], len(self.widths) - 1)
        grid = (*sizes[-1], self.channels)
        if self.outputs != self.parts * math.prod(grid):
            count = self.outputs // self.parts
            raise ValueError(f"GridEncoder: the code has {count} numbers, but a grid of {grid} has {math.prod(grid)}.")
        how = {"dtype": self.dtype, "causal": self.causal, "last": batch_last.preferred()}
        h = Conv3(self.widths[0], **how)(batch_last.turned(x, how["last"]))
        for i, width in enumerate(self.widths):
            if i:
                h = Down(self.widths[i - 1], strides_between(sizes[i - 1], sizes[i]), **how)(h)
            for _ in range(self.blocks):
                h = ResidualBlock(width, **how)(h)
        h = Conv3(self.parts * self.channels, **how)(activated(h, **how))
        h = batch_last.turned(h, how["last"])
        return jnp.concatenate([part.reshape(len(x), -1) for part in jnp.split(h, self.parts, axis=-1)], axis=-1)


class GridDecoder(nn.Module):
    """Network (2), z [B, Z] -> [B, *shape] with shape = (*space, C), linear at the end.

    Attributes:
        widths, blocks, fold, causal: as those of the encoder.

    Raises:
        ValueError: Z is no multiple of the cells of the grid.
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    fold: int = 1
    causal: bool = False
    dtype: Any = jnp.float32

    def __call__(self, z: Array) -> Array:
        return in_parts(type(self).whole, self, z)

    @nn.compact
    def whole(self, z: Array) -> Array:
        """The same for all rows at once."""
        space, folds = self.shape[:-1], (self.fold,) * (len(self.shape) - 1)
        sizes = halved(tuple(-(-n // self.fold) for n in space), len(self.widths) - 1)
        if z.shape[1] % math.prod(sizes[-1]):
            raise ValueError(f"GridDecoder: a code of {z.shape[1]} numbers does not fill a grid of {sizes[-1]} cells.")
        how = {"dtype": self.dtype, "causal": self.causal, "last": batch_last.preferred()}
        z = z.reshape(len(z), *sizes[-1], -1)
        h = Conv3(self.widths[-1], **how)(batch_last.turned(z, how["last"]))
        for i, width in reversed(list(enumerate(self.widths))):
            for _ in range(self.blocks):
                h = ResidualBlock(width, **how)(h)
            if i:
                h = Up(self.widths[i - 1], sizes[i - 1], **how)(h)
        h = Conv3(self.fold ** len(space) * self.shape[-1], **how)(activated(h, **how))
        h = batch_last.turned(h, how["last"])
        return depth_to_space(h, folds)[:, *(slice(n) for n in space), :]


class ResidualBlock(nn.Module):
    """Block (3), [B, *n, C] -> [B, *n, features], with a linear short cut where C is another number.

    last: whether x and the result are [C, *n, B].
    """

    features: int
    dtype: Any = jnp.float32
    causal: bool = False
    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h, how = x, {"dtype": self.dtype, "causal": self.causal, "last": self.last}
        for _ in range(2):
            h = Conv3(self.features, **how)(activated(h, **how))
        if x.shape[0 if self.last else -1] != self.features:
            x = Dense(self.features, self.dtype, self.last, bias=False)(x)
        return x + h


def activated(h: Array, dtype: Any, causal: bool, last: bool) -> Array:
    """silu(norm(h)) with up to 32 groups of channels, in the module that calls it.

    Those take in all of space, and so all times; if `causal` is asked for, the norm is RMSNorm.
    """
    groups = math.gcd(32, h.shape[0 if last else -1])
    norm = RMSNorm(dtype, last) if causal else GroupNorm(groups, dtype, last)
    return nn.silu(norm(h))
