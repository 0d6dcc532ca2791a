"""Pictures and clips: every way to hand one over, what is converted, what is refused, and what a person sees."""

import io
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow

from mmgen_jax.modalities import Bernoulli, Image, LabelMap, Video

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
CLIP = np.random.default_rng(1).integers(0, 256, (6, 3, 4, 1)).astype(np.uint8)


def test_arrays_of_every_type_mean_the_same() -> None:
    image, expected = Image(3, 4, 1), (GREY / 255)[..., None].astype(np.float32)
    for raw in (GREY, GREY[..., None], GREY / 255, jnp.asarray(GREY), jnp.asarray(GREY / 255)):
        np.testing.assert_allclose(image.encode(raw), expected, rtol=1e-6)
    half = image.encode(jnp.asarray(GREY / 255, jnp.bfloat16))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, expected, atol=3e-3)
    np.testing.assert_array_equal(image.encode(GREY > 100), (GREY > 100)[..., None])


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures_take_the_number_of_channels(channels: int, mode: str, tmp_path: Path) -> None:
    picture = Pillow.fromarray(COLOUR)
    x = Image(3, 4, channels).encode(picture)
    np.testing.assert_array_equal(x, np.asarray(picture.convert(mode), np.float32).reshape(3, 4, channels) / 255)
    picture.save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(Image(3, 4, channels).encode(path), x)
    assert Image(3, 4, channels).decode(x).mode == mode


def test_pictures_are_resized_with_antialiasing() -> None:
    """Fine stripes become even grey; picking pixels would keep stripes or lose them."""
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    x = Image(8, 8, 1).encode(Pillow.fromarray(stripes))
    np.testing.assert_allclose(x[1:-1, 1:-1], 0.5, atol=0.02)


def test_transparency_becomes_white_unless_there_is_a_channel_for_it() -> None:
    clear = Pillow.new("RGBA", (4, 3), (0, 0, 0, 0))
    np.testing.assert_array_equal(Image(3, 4, 3).encode(clear), 1)
    np.testing.assert_array_equal(Image(3, 4, 1).encode(clear), 1)
    np.testing.assert_array_equal(Image(3, 4, 4).encode(clear), 0)


def test_black_and_white_pictures_suit_bernoulli() -> None:
    image = Image(3, 4, 1, likelihood=Bernoulli())
    picture = Pillow.fromarray(GREY).convert("1")
    assert set(np.unique(image.encode(picture))) == {0.0, 1.0}
    assert image.decode(np.full((3, 4, 1), 0.5)).getpixel((0, 0)) == 128  # a mean may be grey


def test_png_is_exact_and_shows_odd_channels_side_by_side() -> None:
    png = Pillow.open(io.BytesIO(Image(3, 4, 3).render(COLOUR / 255).data))
    np.testing.assert_array_equal(np.asarray(png), COLOUR)
    two = np.stack([GREY, GREY.T.reshape(3, 4)], axis=-1)
    png = Pillow.open(io.BytesIO(Image(3, 4, 2).render(two / 255).data))
    np.testing.assert_array_equal(np.asarray(png), np.concatenate([GREY, GREY.T.reshape(3, 4)], axis=1))


def test_positions_are_centres_in_pixels() -> None:
    np.testing.assert_array_equal(Image(8, 4, 3).positions(), [[1.5, 1.5], [5.5, 1.5]])
    clip = Video(4, 8, 8, fps=10, tubelet=(2, 8, 8))
    np.testing.assert_allclose(clip.positions(), [[0.05, 3.5, 3.5], [0.25, 3.5, 3.5]], rtol=1e-6)


def test_clips_of_every_form() -> None:
    video = Video(6, 3, 4, 1)
    expected = CLIP.astype(np.float32) / 255
    frames = [Pillow.fromarray(frame[..., 0]) for frame in CLIP]
    for raw in (CLIP, CLIP[..., 0], list(CLIP), list(CLIP[..., 0]), tuple(frames), CLIP / 255):
        np.testing.assert_allclose(video.encode(raw), expected, rtol=1e-6)


def test_long_clips_keep_their_middle_and_short_ones_hold_their_last_frame() -> None:
    clip = CLIP.astype(np.float32) / 255
    np.testing.assert_array_equal(Video(2, 3, 4, 1).encode(CLIP), clip[2:4])
    np.testing.assert_array_equal(Video(8, 3, 4, 1).encode(CLIP), clip[[0, 1, 2, 3, 4, 5, 5, 5]])


@pytest.mark.parametrize("fps", [1, 7, 8, 12.5, 24, 30])
def test_gif_round_trip(fps: float, tmp_path: Path) -> None:
    """Every frame comes back in its place, equal neighbours too, which Pillow merges in the file."""
    greys = np.array([0, 60, 60, 60, 120, 180, 180, 240, 30, 30], np.uint8)
    video = Video(10, 8, 8, 1, fps=fps)
    x = video.encode(np.broadcast_to(greys[:, None, None], (10, 8, 8)))
    path = tmp_path / "clip.gif"
    path.write_bytes(video.render(x).data)
    np.testing.assert_allclose(video.encode(path), x, atol=1.5 / 255)


def test_gif_is_large_enough_to_see_and_lasts_as_long_as_the_clip() -> None:
    x = np.linspace(0, 1, 7 * 5 * 4 * 3, dtype=np.float32).reshape(7, 5, 4, 3)
    with Pillow.open(io.BytesIO(Video(7, 5, 4, fps=6).render(x).data)) as clip:
        assert clip.size == (104, 130) and clip.n_frames == 7 and clip.info["loop"] == 0
        durations = []
        for i in range(7):
            clip.seek(i)
            durations.append(clip.info["duration"])
    assert sum(durations) == pytest.approx(1000 * 7 / 6, abs=10)


def broken(path: Path) -> Path:
    path.write_text("no picture at all")
    return path


@pytest.mark.parametrize(
    "modality, raw, sentence",
    [
        (Image(3, 4, 3), GREY, "Image: one example has shape (3, 4, 3), but the array has (3, 4)."),
        (Image(4, 4, 1), GREY, "Image: one example has shape (4, 4, 1), but the array has (3, 4, 1)."),
        (Image(3, 4, 1), GREY.astype(int), "Image: pixels must be uint8 or floats in [0, 1], not int64."),
        (Image(3, 4, 1), GREY + 0.0, "Image: floats must be in [0, 1], but these run from 0 to 220."),
        (Image(3, 4, 1), GREY / 255 - 1, "Image: floats must be in [0, 1], but these run from -1 to -0.1373."),
        (Image(3, 4, 1), GREY * np.nan, "Image: floats must be in [0, 1], but these run from nan to nan."),
        (
            Image(3, 4, 1, likelihood=Bernoulli()),
            GREY,
            "Image: the Bernoulli likelihood needs values of 0 or 1 only.",
        ),
        (
            Image(3, 4, 5),
            Pillow.fromarray(GREY),
            "a picture cannot become an array of 5 channels: give an array.",
        ),
        (
            Image(3, 4, 1),
            Pillow.fromarray(GREY.astype(np.int32)),
            "a picture of mode I has more than 8 bits: give a float array in [0, 1].",
        ),
        (Video(6, 3, 4, 1), [], "Video: the clip has no frames."),
        (Video(6, 3, 4, 3), CLIP, "Video: one example has shape (6, 3, 4, 3), but the array has (6, 3, 4, 1)."),
        (Video(6, 3, 4, 1), list(CLIP[:1]) + [GREY[:2]], "Video: the frames of a clip must all have one shape."),
        (Video(6, 3, 4, 1), np.full((6, 3, 4), 2.0), "Video: floats must be in [0, 1], but these run from 2 to 2."),
    ],
)
def test_errors(modality, raw, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        modality.encode(raw)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("modality, kind", [(Image(3, 4), "a picture"), (Video(6, 3, 4), "an animation")])
def test_errors_of_files(modality, kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        modality.encode(tmp_path / "none.png")
    path = broken(tmp_path / "text.png")
    with pytest.raises(ValueError) as caught:
        modality.encode(path)
    assert str(caught.value) == f"{path} is not {kind} that can be read."


def test_label_maps_keep_classes_and_show_colours(tmp_path: Path) -> None:
    cut = np.array([[0, 0, 1, 1], [2, 2, 1, 1]], np.uint8)
    maps, small = LabelMap(2, 4, 3), LabelMap(1, 2, 3)
    picture = Pillow.fromarray(cut)
    picture.save(tmp_path / "map.png")
    for raw in (cut, cut[..., None], cut.tolist(), picture, tmp_path / "map.png"):
        np.testing.assert_array_equal(maps.encode(raw), cut)
    # Pixels are picked, not mixed: between 0 and 2 there is no 1.
    stripes = Pillow.fromarray(np.repeat(np.array([[0], [2]], np.uint8), 4, axis=1))
    assert set(small.encode(stripes).ravel()) <= {0, 2}
    with Pillow.open(io.BytesIO(maps.render(cut.astype(np.int32)).data)) as shown:
        pixels = np.asarray(shown)
    assert pixels.shape == (2, 4, 3) and len(np.unique(pixels.reshape(-1, 3), axis=0)) == 3
    for raw, message in (
        (cut + 1, "LabelMap: classes must be whole numbers from 0 to 2, not uint8 from 1 to 3."),
        (cut / 2, "LabelMap: classes must be whole numbers from 0 to 2, not float64 from 0.0 to 1.0."),
        (cut[:1], "LabelMap: one example has shape (2, 4), but the array has (1, 4)."),
        (picture.convert("RGB"), "LabelMap: one example has shape (2, 4), but the array has (2, 4, 3)."),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            maps.encode(raw)
