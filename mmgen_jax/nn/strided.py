"""Convolutions of any kernel and stride, and their transposes, as convolutions of stride one on blocks of cells.

    strided       y_i = sum_k w_k x_{s i + k - b},   k = 0..K-1,   i = 0..ceil(n / s)-1                      (1)
    transposed    the transpose of (1)                                                                       (2)

in each axis, x being zero outside. In blocks of s cells a kernel of K taps is one of ceil(K / s), whose last taps may
be missing: see `conv.py`, which has kernels of 4 and stride 2, for why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp

from mmgen_jax.nn.conv import conv, depth_to_space, space_to_depth
from mmgen_jax.types import Array


def strided(x: Array, kernel: Array, strides: Sequence[int], before: Sequence[int]) -> Array:
    """Equation (1): x [B, *n, C], kernel [*K, C, O], b = `before` -> [B, *ceil(n / s), O]."""
    blocks, pad = blocked(kernel, strides), []
    for n, s, b, m in zip(x.shape[1:-1], strides, before, blocks.shape, strict=False):
        pad.append((b, s * (-(-n // s) - 1 + m) - n - b))
    d, (inputs, outputs) = len(strides), kernel.shape[-2:]
    # [*blocks, *within, C, O]: the cells of a block and their channels are the channels of a block.
    blocks = blocks.reshape(*blocks.shape[:d], math.prod(strides) * inputs, outputs)
    return conv(space_to_depth(jnp.pad(x, ((0, 0), *pad, (0, 0))), strides), blocks, [(0, 0)] * d)


def transposed(x: Array, kernel: Array, strides: Sequence[int], before: Sequence[int], size: Sequence[int]) -> Array:
    """Equation (2): x [B, *ceil(n / s), C], kernel [*K, C, O] -> [B, *n, O], n = `size`."""
    d, blocks = len(strides), blocked(kernel, strides)
    blocks = jnp.moveaxis(jnp.flip(blocks, range(d)), 2 * d, d)  # [*blocks, C, *within, O]
    blocks = blocks.reshape(*blocks.shape[: d + 1], -1)
    cells = conv(x, blocks, [(m - 1, m - 1) for m in blocks.shape[:d]])
    inside = (slice(b, b + n) for b, n in zip(before, size, strict=True))
    return depth_to_space(cells, strides)[:, *inside, :]


def blocked(kernel: Array, strides: Sequence[int]) -> Array:
    """A kernel [*K, C, O], with zeros for the missing taps, as [*ceil(K / s), *s, C, O]."""
    d = len(strides)
    pad = [(0, -k % s) for k, s in zip(kernel.shape, strides, strict=False)]
    kernel = jnp.pad(kernel, (*pad, (0, 0), (0, 0)))
    shape = itertools.chain(*((k // s, s) for k, s in zip(kernel.shape, strides, strict=False)))
    kernel = kernel.reshape(*shape, *kernel.shape[-2:])
    return kernel.transpose(*range(0, 2 * d, 2), *range(1, 2 * d, 2), 2 * d, 2 * d + 1)
