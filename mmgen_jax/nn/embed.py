"""Between arrays and sequences of tokens: patches of a space of one, two or three dimensions, and tables for symbols.

A space that its patch does not divide is padded with zeros at the end on the way in and cropped on the way out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.nn.conv import depth_to_space, filled, space_to_depth
from mmgen_jax.types import Array


def patch_grid(space: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """The number of patches along each axis, the last one perhaps only partly filled."""
    return tuple(-(-n // p) for n, p in zip(space, patch, strict=True))


def patchify(x: Array, patch: Sequence[int]) -> Array:
    """[B, *space, C] -> [B, T, prod(patch) C], row-major over the grid of patches."""
    cells = space_to_depth(filled(x, patch), patch)
    return cells.reshape(x.shape[0], math.prod(cells.shape[1:-1]), -1)


def unpatchify(tokens: Array, patch: Sequence[int], space: Sequence[int]) -> Array:
    """The inverse of `patchify`: [B, T, prod(patch) C] -> [B, *space, C]."""
    cells = tokens.reshape(tokens.shape[0], *patch_grid(space, patch), -1)
    return depth_to_space(cells, patch)[:, *(slice(n) for n in space), :]


def patch_positions(space: Sequence[int], patch: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Centres of the patches, [T, axes] float32, in the unit of `spacing` (pixels: 1; seconds: 1 / rate)."""
    axes = [
        (np.arange(g) * p + (p - 1) / 2) * step
        for g, p, step in zip(patch_grid(space, patch), patch, spacing, strict=True)
    ]
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=-1).astype(np.float32)


def patch_of(space: Sequence[int], patch: Sequence[int]) -> np.ndarray:
    """The number of the patch that each cell is in, int32 [*space]."""
    cells = [place // p for place, p in zip(np.indices(space), patch, strict=True)]
    return np.ravel_multi_index(cells, patch_grid(space, patch)).astype(np.int32)


class PatchEmbed(nn.Module):
    """[B, *space, C] -> [B, T, width], one linear map for all patches."""

    patch: tuple[int, ...]
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.width, dtype=self.dtype)(patchify(x, self.patch))


class PatchHead(nn.Module):
    """[B, T, width] -> [B, *shape] with shape = (*space, channels)."""

    patch: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        values = nn.Dense(math.prod(self.patch) * self.shape[-1], dtype=self.dtype)(tokens)
        return unpatchify(values, self.patch, self.shape[:-1])


class TokenEmbed(nn.Module):
    """Symbols [B, L] int -> [B, L, width]."""

    vocabulary: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        return nn.Embed(self.vocabulary, self.width, dtype=self.dtype)(tokens)


class TokenHead(nn.Module):
    """[B, L, width] -> logits [B, L, vocabulary], always in float32."""

    vocabulary: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.vocabulary, dtype=self.dtype)(x).astype(jnp.float32)
