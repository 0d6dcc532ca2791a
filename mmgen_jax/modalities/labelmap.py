"""Label maps: a class for every pixel, int32 [height, width], as a street is cut into road, cars and sky.

Every pixel is a symbol, and a token of its own.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math
import os
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities import pictures
from mmgen_jax.modalities.common import Direct, check_counts, check_parts, check_shape, headed
from mmgen_jax.modalities.label import OneHot
from mmgen_jax.modalities.likelihoods import Categorical
from mmgen_jax.nn.conv import ConvDecoder, ConvEncoder
from mmgen_jax.nn.embed import TokenEmbed, TokenHead, patch_positions
from mmgen_jax.types import Array, Rendering

TURN = (math.sqrt(5) - 1) / 2  # of the circle of hues from class to class: neighbours differ, and none comes back


@dataclasses.dataclass(frozen=True)
class LabelMap(Direct):
    """`LabelMap(64, 64, 20)`: pictures of any size, of one of 20 classes at every pixel.

    encoder, decoder: your own linen modules ([B, H, W] int32 -> [B, F]; [B, Z] -> logits [B, H, W, classes]).
    features, fold: of the default networks, as for `Image`.
    """

    height: int
    width: int
    classes: int
    _: dataclasses.KW_ONLY
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    features: int = 32
    fold: int = 1

    axes = ("row", "column")

    def __post_init__(self) -> None:
        check_counts(self, "height", "width", "classes", "features", "fold")
        check_parts(self)

    @property
    def likelihood(self) -> Categorical:
        return Categorical(self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.height, self.width)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def encoder_network(self, outputs: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, H, W] -> [B, outputs]."""
        if self.encoder is not None:
            return headed(self.encoder, outputs, dtype)
        return OneHot(self.classes, ConvEncoder(outputs, self.features, (self.fold,) * 2, dtype))

    def decoder_network(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> logits [B, H, W, classes]."""
        if self.decoder is not None:
            return self.decoder
        return ConvDecoder((*self.shape, self.classes), self.features, (self.fold,) * 2, dtype)

    def tokens_in(self, width: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, H, W] -> [B, H W, width]."""
        return PixelEmbed(self.classes, width, dtype)

    def tokens_out(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, H W, width] -> logits [B, H, W, classes]."""
        return PixelHead(self.shape, self.classes, dtype)

    def positions(self) -> np.ndarray:
        """The centre of each pixel, [H W, 2] float32."""
        return patch_positions(self.shape, (1, 1), (1.0, 1.0))

    def token_of(self) -> np.ndarray:
        """Each pixel is a token, int32 [H, W]."""
        return np.arange(self.height * self.width, dtype=np.int32).reshape(self.shape)

    def encode(self, raw: Any) -> np.ndarray:
        """A map as a model sees it, [H, W] int32.

        raw: an array [H, W] or [H, W, 1] of whole numbers (never resized), or a Pillow picture of one channel whose
        values are classes, or the path of one (to whose pixels the nearest ones are taken).

        Raises:
            ValueError: wrong shape or type, a picture of several channels, or a number that is no class.
            FileNotFoundError: no file at the path.
        """
        if isinstance(raw, str | os.PathLike):
            raw = pictures.load(raw)
        if pictures.is_picture(raw):
            raw = np.asarray(raw.resize((self.width, self.height), resample=0))
        x = np.asarray(raw)
        return self._checked(x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x).astype(np.int32)

    def decode(self, x: Any) -> np.ndarray:
        """The map as it is, int32 [H, W]."""
        return self._checked(x).astype(np.int32)

    def render(self, x: Any) -> Rendering:
        """A PNG in which every class has a colour, pixel for pixel."""
        return Rendering("png", pictures.png(pictures.from_array(colours(self.classes)[self._checked(x)])))

    def _checked(self, x: Any) -> np.ndarray:
        x = check_shape(self, x)
        if not np.issubdtype(x.dtype, np.integer) or x.min() < 0 or x.max() >= self.classes:
            found = f"{x.dtype} from {x.min()} to {x.max()}"
            raise ValueError(f"LabelMap: classes must be whole numbers from 0 to {self.classes - 1}, not {found}.")
        return x


def colours(count: int) -> np.ndarray:
    """A colour for each class, uint8 [count, 3]."""
    kinds = [colorsys.hsv_to_rgb(i * TURN % 1, 0.6, 1 - 0.5 * (i % 3) / 2) for i in range(count)]
    return np.round(255 * np.array(kinds)).astype(np.uint8)


class PixelEmbed(nn.Module):
    """Classes [B, H, W] -> [B, H W, width]."""

    classes: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return TokenEmbed(self.classes, self.width, self.dtype)(x.reshape(len(x), -1))


class PixelHead(nn.Module):
    """[B, H W, width] -> logits [B, H, W, classes]."""

    space: tuple[int, ...]
    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        return TokenHead(self.classes, self.dtype)(tokens).reshape(len(tokens), *self.space, -1)
