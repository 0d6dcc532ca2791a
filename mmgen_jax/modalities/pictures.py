"""Between arrays of pixels and Pillow's pictures, for still and moving images."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for a number of channels
DEEP = ("I", "F")  # first letters of the modes with more than 8 bits: Pillow would clip them to 255


def to_array(picture: Any, height: int, width: int, channels: int) -> np.ndarray:
    """A Pillow picture of any size and mode -> uint8 [height, width, channels].

    Resized with antialiasing, without keeping the aspect ratio. What is transparent becomes white unless the array has
    four channels. Raises ValueError if Pillow has no picture of that many channels or this one has more than 8 bits.
    """
    from PIL import Image, ImageOps

    if channels not in MODES:
        raise ValueError(f"a picture cannot become an array of {channels} channels: give an array.")
    if picture.mode.startswith(DEEP):
        raise ValueError(f"a picture of mode {picture.mode} has more than 8 bits: give a float array in [0, 1].")
    picture = ImageOps.exif_transpose(picture)
    if MODES[channels] != "RGBA" and picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert(MODES[channels])
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(height, width, channels)


def from_array(pixels: np.ndarray) -> Any:
    """uint8 [H, W, C] -> a Pillow picture; other than 1, 3 or 4 channels side by side in grey."""
    from PIL import Image

    if pixels.shape[-1] not in MODES:
        pixels = np.concatenate(np.moveaxis(pixels, -1, 0), axis=1)[..., None]
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def load(path: str | os.PathLike[str]) -> Any:
    """The Pillow picture in a file. Raises ValueError if the file holds none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.copy()
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read.") from error


def is_picture(raw: Any) -> bool:
    """Whether it is a Pillow picture, without importing Pillow for what is not."""
    return hasattr(raw, "convert") and hasattr(raw, "resize") and hasattr(raw, "mode")


def png(picture: Any) -> bytes:
    """The PNG file of a Pillow picture."""
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def gif(frames: list[Any], fps: float) -> bytes:
    """The animated GIF of Pillow pictures, endlessly repeated."""
    # GIF counts in hundredths of a second: rounding the times of the cuts, not the durations, adds up to no drift.
    cuts = np.round(np.arange(len(frames) + 1) * 100 / fps) * 10
    durations = [max(10, int(d)) for d in np.diff(cuts)]
    file = io.BytesIO()
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def load_gif(path: str | os.PathLike[str], fps: float) -> list[Any]:
    """What an animated GIF shows at the middle of every 1 / fps seconds, as Pillow pictures, at least one."""
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(path) as clip:
            shown = [(frame.copy(), frame.info.get("duration", 100)) for frame in ImageSequence.Iterator(clip)]
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an animation that can be read.") from error
    ends = np.cumsum([max(10, milliseconds) for _, milliseconds in shown]) / 1000
    times = (np.arange(max(1, round(ends[-1] * fps))) + 0.5) / fps
    picks = np.minimum(np.searchsorted(ends, times, side="right"), len(shown) - 1)
    return [shown[i][0] for i in picks]


def enlarged(picture: Any, least: int = 128) -> Any:
    """The picture with every pixel a square of pixels, so that its longer side has at least `least`."""
    from PIL import Image

    factor = -(-least // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
