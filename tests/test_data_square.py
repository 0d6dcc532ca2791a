"""Squares of pictures: the middle, at the size of the modality, and kept apart from the whole on disk."""

import numpy as np

from mmgen_jax.data import Arrays, Square, load
from mmgen_jax.modalities import Image


def wide(height, width, channels=3):
    """White in the middle square, black beside it."""
    x = np.zeros((height, width, channels), np.uint8)
    side = min(height, width)
    x[(height - side) // 2 :, (width - side) // 2 :][:side, :side] = 255
    return x


def test_the_middle_of_pictures_of_all_sizes_fills_the_modality():
    data = Square(Arrays({"image": [wide(6, 11), wide(9, 4), wide(5, 5), None], "other": [1, 2, 3, 4]}))
    source = data.source("train")
    assert len(source) == 4 and source[3] == {"image": None, "other": 4} and source[0]["image"].size == (6, 6)
    loaded = load(source, {"image": Image(8, 8, 3)})
    np.testing.assert_array_equal(loaded.present["image"], [True, True, True, False])
    np.testing.assert_array_equal(loaded.values["image"][:3], 1.0)


def test_grey_pictures_under_another_name():
    source = Square(Arrays({"scan": [wide(3, 5, channels=1)]}), name="scan").source("train")
    np.testing.assert_array_equal(load(source, {"scan": Image(3, 3, 1)}).values["scan"], 1.0)


def test_squares_of_files_have_a_fingerprint_of_their_own():
    source = Arrays({"image": [wide(2, 3)]}).source("train")
    source.fingerprint = "files"

    class Files:
        def source(self, split):
            return source

    marks = {Square(Files()).source("train").fingerprint, Square(Files(), name="scan").source("train").fingerprint}
    assert len(marks | {"files"}) == 3
    assert Square(Arrays({"image": [wide(2, 3)]})).source("train").fingerprint is None
