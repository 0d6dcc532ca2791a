"""Pictures of all sizes as squares."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mmgen_jax.data.kept import digest
from mmgen_jax.types import Data, Source


@dataclasses.dataclass(frozen=True)
class Square:
    """The middle of each picture, as ImageNet is modelled: `Square(Tfds("imagenet2012", {"image": "image"}))`.

    They become Pillow pictures, which an `Image` brings to its own size; arrays it takes only as they are.

    name: the modality, arrays uint8 [H, W, 3] of any size, or [H, W, 1].
    """

    data: Data
    name: str = "image"

    def source(self, split: str) -> Source:
        """Raises ValueError as that of the data."""
        return Squares(self.data.source(split), self.name)


class Squares:
    """A Source whose part `name` is the middle square of each picture, in Pillow's form."""

    def __init__(self, source: Source, name: str) -> None:
        self.source, self.name = source, name

    @property
    def fingerprint(self) -> str | None:
        return digest(getattr(self.source, "fingerprint", None), "square", self.name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example = self.source[i]
        if example.get(self.name) is None:
            return example
        return example | {self.name: middle(example[self.name])}


def middle(pixels: np.ndarray) -> Any:
    """The largest square in the middle of uint8 [H, W, 3] or [H, W, 1], as a Pillow picture."""
    from PIL import Image

    height, width, channels = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    return Image.fromarray(square[..., 0] if channels == 1 else square)
