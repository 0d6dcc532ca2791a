"""Moving pictures without sound: float32 [frames, height, width, channels] in [0, 1]."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import flax.linen as nn
import numpy as np

from mmgen_jax.modalities import pictures
from mmgen_jax.modalities.common import (
    Grid,
    as_bytes,
    check_counts,
    check_parts,
    check_rate,
    check_shape,
    unit_interval,
)
from mmgen_jax.modalities.likelihoods import Categorical, Normal
from mmgen_jax.types import Likelihood, Rendering


@dataclasses.dataclass(frozen=True)
class Video(Grid):
    """`Video(8, 32, 32, 1, fps=8)`: clips of 8 frames, one second long.

    likelihood, encoder, decoder, features, fold: as for `Image`, with [B, F, H, W, C] for [B, H, W, C].
    tubelet: frames, rows and columns of the block that is one token.
    """

    frames: int
    height: int
    width: int
    channels: int = 3
    _: dataclasses.KW_ONLY
    fps: float = 8
    likelihood: Likelihood = Normal(0.1)
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    features: int = 32
    fold: int = 1
    tubelet: tuple[int, int, int] = (2, 8, 8)

    standard = (0.5, 0.5)
    axes = ("second", "row", "column")

    def __post_init__(self) -> None:
        check_counts(self, "frames", "height", "width", "channels", "features", "fold")
        check_parts(self, unfit=(Categorical,))
        check_rate(self, "fps")
        sides = self.tubelet if isinstance(self.tubelet, tuple) else ()
        if len(sides) != 3 or any(type(n) is not int or n < 1 for n in sides):
            raise ValueError(
                f"Video: tubelet must be a tuple of three whole numbers of at least 1, not {self.tubelet!r}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.frames, self.height, self.width, self.channels)

    @property
    def patches(self) -> tuple[int, ...]:
        return self.tubelet

    @property
    def spacing(self) -> tuple[float, ...]:
        return (1 / self.fps, 1.0, 1.0)

    def encode(self, raw: Any) -> np.ndarray:
        """A clip as a model sees it, [F, H, W, C] float32.

        raw: the path of a GIF (read at `fps`), a list of frames, each a Pillow picture or an array as `Image` takes
        them, or an array [any, H, W, C], without C if that is one. Pictures are resized, arrays never. Of a longer clip
        the middle is kept; after the end of a shorter one its last frame stays.

        Raises:
            ValueError: no frames; wrong shape, type or range; grey values under a Bernoulli likelihood.
            FileNotFoundError: no file at the path.
        """
        if isinstance(raw, str | os.PathLike):
            raw = pictures.load_gif(raw, self.fps)
        if len(raw) == 0:
            raise ValueError("Video: the clip has no frames.")
        clip = raw if isinstance(raw, np.ndarray) else self._stacked(raw)
        if self.channels == 1 and clip.ndim == 3:
            clip = clip[..., None]
        if len(clip) != self.frames:
            start = max(0, (len(clip) - self.frames) // 2)
            clip = clip[np.minimum(np.arange(start, start + self.frames), len(clip) - 1)]
        return unit_interval(self, check_shape(self, clip))

    def _stacked(self, raw: Any) -> np.ndarray:
        """Frames, pictures or arrays, as one array."""
        size = self.shape[1:]
        frames = [pictures.to_array(f, *size) if pictures.is_picture(f) else np.asarray(f) for f in raw]
        if any(frame.shape != frames[0].shape for frame in frames):
            raise ValueError("Video: the frames of a clip must all have one shape.")
        return np.stack(frames)

    def decode(self, x: Any) -> list[Any]:
        """[F, H, W, C] -> a list of Pillow pictures, or of uint8 arrays where Pillow knows no such channels."""
        clip = as_bytes(check_shape(self, x))
        return [pictures.from_array(frame) if self.channels in pictures.MODES else frame for frame in clip]

    def render(self, x: Any) -> Rendering:
        """An animated GIF at `fps`, small frames enlarged by a whole factor."""
        frames = [pictures.from_array(frame) for frame in as_bytes(check_shape(self, x))]
        return Rendering("gif", pictures.gif([pictures.enlarged(frame) for frame in frames], self.fps))
