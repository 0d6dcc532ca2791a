"""A clip as one picture that moves.

    x_t(p) = sum_q k(p - q - s_t) c(q),      k(r) = prod_axis max(0, 1 - |r_axis|)      (1)

The picture c is decoded once, the shifts s_t [frames, 2] (rows, columns) say where it stands in each frame, and linear
interpolation puts it there. What moves and how it moves are then two things, as in attend-infer-repeat (Eslami et al.
2016, arXiv:1603.08575) and spatial transformers (Jaderberg et al. 2015, arXiv:1506.02025), of which (1) is the case of
translations: two small matrix products a frame.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.nn.conv import ConvDecoder
from mmgen_jax.nn.mlp import MLP
from mmgen_jax.types import Array


def interpolation(shifts: Array, size: int) -> Array:
    """k(p - q - s) of equation (1) along one axis: shifts [...] in cells -> [..., size (p), size (q)]."""
    p, q = jnp.indices((size, size), dtype=shifts.dtype).reshape(2, *(1,) * shifts.ndim, size, size)
    return jnp.maximum(0, 1 - jnp.abs(p - q - shifts[..., None, None]))


def moved(picture: Array, shifts: Array) -> Array:
    """Equation (1): picture [B, H, W, C], shifts [B, F, 2] in pixels -> [B, F, H, W, C]; zero comes in from outside."""
    rows, columns = (interpolation(shifts[..., i], picture.shape[1 + i]) for i in (0, 1))
    return jnp.einsum("bfyh,bhwc,bfxw->bfyxc", rows, picture, columns)


class MovingPicture(nn.Module):
    """Code [B, Z] -> clip [B, F, H, W, C]: a picture of all but the last `motion` numbers, moved as all of them say.

    Whatever those last numbers hold, they cannot change the picture: as the private code of a clip they say where it
    starts, and never what it shows. A shift is at most `reach` times the clip's height and width. What comes in from
    outside is zero, and the picture is never less: light on black under the mean of a Normal or Laplace likelihood.
    Without that bound an almost black ground is never quite black, which no eye sees and every classifier does.
    """

    shape: tuple[int, int, int, int]
    motion: int
    features: int = 32
    fold: int = 1
    reach: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, code: Array) -> Array:
        frames, *size = self.shape
        decoder = ConvDecoder(tuple(size), self.features, (self.fold, self.fold), self.dtype)
        picture = nn.relu(decoder(code[:, : -self.motion]))
        ways = nn.tanh(MLP((frames, 2), (8 * self.features,), self.dtype)(code))
        return moved(picture, ways * self.reach * jnp.array(size[:2], ways.dtype).reshape(1, 1, 2))
