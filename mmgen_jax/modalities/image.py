"""Pictures: float32 [height, width, channels] in [0, 1]."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import flax.linen as nn
import numpy as np

from mmgen_jax.modalities import pictures
from mmgen_jax.modalities.common import Grid, as_bytes, check_counts, check_parts, check_shape, unit_interval
from mmgen_jax.modalities.likelihoods import Categorical, Normal
from mmgen_jax.types import Likelihood, Rendering


@dataclasses.dataclass(frozen=True)
class Image(Grid):
    """`Image(28, 28, 1)`: pictures of any height, width and number of channels.

    likelihood: Normal, Laplace, DiscretizedLogistic, or Bernoulli for black and white. The default's standard deviation
        of 0.1 is about the error of a good reconstruction, so that the bits of picture and latent are in proportion.
    encoder, decoder: your own linen modules ([B, H, W, C] -> [B, F]; [B, Z] -> [B, *likelihood.out_shape(shape)]).
    features: width of the first layer of the default networks.
    fold: cells along each axis that they take as one: 2 makes them several times as fast, and a little coarser.
    patch: side of the square that is one token, in pixels.
    """

    height: int
    width: int
    channels: int = 3
    _: dataclasses.KW_ONLY
    likelihood: Likelihood = Normal(0.1)
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    features: int = 32
    fold: int = 1
    patch: int = 4

    standard = (0.5, 0.5)
    axes = ("row", "column")

    def __post_init__(self) -> None:
        check_counts(self, "height", "width", "channels", "features", "fold", "patch")
        check_parts(self, unfit=(Categorical,))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.height, self.width, self.channels)

    @property
    def patches(self) -> tuple[int, ...]:
        return (self.patch, self.patch)

    @property
    def spacing(self) -> tuple[float, ...]:
        return (1.0, 1.0)

    def encode(self, raw: Any) -> np.ndarray:
        """A picture as a model sees it, [H, W, C] float32.

        raw: a Pillow picture or the path of one (converted and resized), or an array [H, W, C] or, with one channel,
        [H, W], of uint8, bool, or floats in [0, 1] (never resized).

        Raises:
            ValueError: wrong shape, type or range; grey values under a Bernoulli likelihood.
            FileNotFoundError: no file at the path.
        """
        if isinstance(raw, str | os.PathLike):
            raw = pictures.load(raw)
        if pictures.is_picture(raw):
            return unit_interval(self, pictures.to_array(raw, *self.shape))
        x = np.asarray(raw)
        return unit_interval(self, check_shape(self, x[..., None] if self.channels == 1 and x.ndim == 2 else x))

    def decode(self, x: Any) -> Any:
        """[H, W, C] -> a Pillow picture, or uint8 [H, W, C] where Pillow knows no such number of channels."""
        pixels = as_bytes(check_shape(self, x))
        return pictures.from_array(pixels) if self.channels in pictures.MODES else pixels

    def render(self, x: Any) -> Rendering:
        """A PNG, pixel for pixel."""
        return Rendering("png", pictures.png(pictures.from_array(as_bytes(check_shape(self, x)))))
