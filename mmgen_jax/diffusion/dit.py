"""DiT, the class-conditional diffusion transformer for pictures (Peebles & Xie 2022, arXiv:2212.09748).

    x = W patches + b + place,    c = TimeEmbed(t) + table[y]                               (1)
    out = Head(Block_depth(... Block_1(x, c) ..., c), c)                                    (2)
    guided = out(null) + scale (out(y) - out(null))                                         (3)

(3) is classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598); the last row of the table stands for no label.
Published sizes, by name and patch: DiT-XL/2 is DiT(**PRESETS["XL"], patch=2).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.nn.dit import DiTBlock, Head, Stack, TimeEmbed, matrix
from mmgen_jax.nn.embed import patch_grid, patch_positions, patchify, unpatchify
from mmgen_jax.nn.rope import place_features
from mmgen_jax.types import Array

PRESETS = {
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
}


class DiT(nn.Module):
    """Equations (1) and (2) for pictures of any size.

    classes: labels are 0..classes - 1, and `classes` stands for none.
    learn_sigma: whether as many channels again come out, for the variance.
    remat, implementation: as in `nn.dit.Stack` and `nn.attention.attention`.
    """

    width: int
    depth: int
    heads: int
    patch: int = 2
    classes: int = 1000
    learn_sigma: bool = True
    dtype: Any = jnp.float32
    remat: str | None = None
    implementation: str | None = None

    @nn.compact
    def __call__(self, x: Array, t: Array, y: Array) -> Array:
        """x [B, H, W, C], t [B] from 0 to about 1000, y [B] int -> [B, H, W, C], or 2 C channels with learn_sigma."""
        *space, channels = x.shape[1:]
        patch, outputs = (self.patch, self.patch), (1 + self.learn_sigma) * channels
        table = nn.Embed(self.classes + 1, self.width, embedding_init=nn.initializers.normal(0.02), name="label")
        c = (TimeEmbed(self.width, name="time")(t) + table(y))[:, None]
        x = nn.Dense(self.width, kernel_init=matrix, dtype=self.dtype, name="embed")(patchify(x, patch))
        cells = patch_positions(patch_grid(space, patch), (1, 1), (1, 1))
        x = x + jnp.asarray(place_features(cells, self.width), self.dtype)[None]
        block = DiTBlock(self.heads, dtype=self.dtype, implementation=self.implementation)
        x = Stack(block, self.depth, self.remat, name="blocks")(x, c)
        return unpatchify(Head(self.patch**2 * outputs, name="head")(x, c), patch, space)

    def guided(self, x: Array, t: Array, y: Array, scale: float, channels: int | None = None) -> Array:
        """Equation (3) in the first `channels` channels, all of x unless given; the others are those for y.

        The released models were sampled with channels = 3, although their x has 4.
        """
        none = jnp.full_like(y, self.classes)
        out = self(*(jnp.concatenate(pair) for pair in ((x, x), (t, t), (y, none))))
        given, free = jnp.split(out, 2)
        channels = x.shape[-1] if channels is None else channels
        guided = (free + scale * (given - free))[..., :channels]
        return jnp.concatenate([guided, given[..., channels:]], axis=-1)
