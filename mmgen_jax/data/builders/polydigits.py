"""PolyDigits: five pictures of one class, each another handwritten digit on a crop of another background.

| modality | the picture behind the digit                                  | its licence, as scikit-image states it |
|----------|---------------------------------------------------------------|----------------------------------------|
| m0       | hubble_deep_field.jpg: stars and galaxies, NASA               | public domain                          |
| m1       | retina.jpg: the back of an eye, M. Häggström                  | CC0                                    |
| m2       | rocket.jpg: a launch before a blue sky, SpaceX                | public domain                          |
| m3       | coffee.png: a cup on wood, Rachel Michetti                    | CC0                                    |
| m4       | ihc.png: stained tissue under a microscope                    | no known copyright restrictions        |

Each view is uint8 [28, 28, 3]; "label", which digit it is, 0 to 9, is all that the five have in common. This is the
construction of PolyMNIST (T. M. Sutter, I. Daunhawer, J. E. Vogt, Generalized Multimodal ELBO, ICLR 2021,
arXiv:2105.02470) as its authors' code has it: with a digit x and a crop b of the background at a random place, both of
28 x 28 pixels and values in 0..255,

    view = 255 - b where x > 128, else b          the colours are inverted where there is ink                     (1)

and within a class every digit is used once in each view. Two things differ. The five digits of an example are always
five different ones; PolyMNIST permutes each view for itself, so there a digit may meet itself. And the backgrounds are
others: of those in colour that the wheel of scikit-image carries, the five that are farthest from a medium grey, which
is its own inverse and hides the digit.

The digits are those of `Digits`, with its split: 400 of each class for training, 100 for testing; or MNIST's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np

from mmgen_jax.data.builders import facts
from mmgen_jax.data.builders.handwritten import handwritten
from mmgen_jax.data.builders.preparing import Recipe, png
from mmgen_jax.data.builders.wheels import known, locate
from mmgen_jax.data.source import check_split
from mmgen_jax.types import Source

SIDE = 28
INK = 128  # brighter is the digit, equation (1)
# view -> its background and how the SHA-256 of the file starts
BACKGROUNDS = {
    "m0": ("hubble_deep_field.jpg", "3a19c5dd8a927a93"),
    "m1": ("retina.jpg", "38a07f36f27f095e"),
    "m2": ("rocket.jpg", "c2dd0de7c538df8d"),
    "m3": ("coffee.png", "cc02f8ca188b167c"),
    "m4": ("ihc.png", "f8dd1aa387ddd1f4"),
}
Origin = Literal["offline", "mnist"]


@dataclasses.dataclass(frozen=True)
class PolyDigits:
    """Five views of a class, a "train" and a "test" split; prepared on first use, read from disk afterwards.

    data_dir: the folder of tensorflow-datasets; None is its usual one (`TFDS_DATA_DIR`, or ~/tensorflow_datasets).
    digits: "offline", the 5,000 of `Digits`: 4,000 examples to train on and 1,000 to test; or "mnist", the set of the
        tensorflow-datasets catalogue, prepared beforehand in the same folder: 60,000 and 10,000. The two may overlap:
        never test on one what was trained on the other.
    per_digit: how often each digit is used in each view, every time in other company and on other crops. There are as
        many examples as digits, times this.
    """

    data_dir: str | None = None
    digits: Origin = "offline"
    per_digit: int = 1

    def __post_init__(self) -> None:
        if self.digits not in get_args(Origin):
            raise ValueError(f'PolyDigits: digits must be "offline" or "mnist", not {self.digits!r}.')
        if type(self.per_digit) is not int or self.per_digit < 1:
            raise ValueError(f"PolyDigits: per_digit must be an integer of at least 1, not {self.per_digit!r}.")

    def source(self, split: str) -> Source:
        """Examples {"m0", ..., "m4", "label"} of one split.

        Raises:
            ValueError: no such split.
            FileNotFoundError: to be prepared from "mnist", which is not prepared itself.
            RuntimeError: to be prepared, and the package that holds the digits or the backgrounds is not installed.
        """
        check_split(self, split)
        recipe = Recipe(
            owner="PolyDigits",
            name="mmgen_polydigits",
            version="1.1.0",  # 1.0.0 had other backgrounds
            config=f"{self.digits}_{self.per_digit}",
            what=f"{5_000 * self.per_digit:,} examples" if self.digits == "offline" else "the examples",
            takes="seconds" if self.digits == "offline" else "minutes",
            about="Five views of a class: five handwritten digits, each on a crop of another background.",
            features=_features,
            supervised=("m0", "label"),
            examples=lambda split: _stored(examples(self, split)),
        )
        return recipe.source(split, self.data_dir)


def _features() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    views = {view: tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png") for view in BACKGROUNDS}
    return views | {"label": tfds.features.ClassLabel(names=list(facts.DIGITS))}


def _stored(examples: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same with the pictures as PNG files."""
    for key, example in examples:
        yield key, example | {view: png(example[view]) for view in BACKGROUNDS}


def examples(data: PolyDigits, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, example) of every example of a split, class by class."""
    images, labels = handwritten("PolyDigits", data.digits, split, data.data_dir)
    pictures = backgrounds()
    for again in range(data.per_digit):
        for label in range(10):
            rows = np.flatnonzero(labels == label)
            rng = np.random.default_rng((again, label, split == "test"))
            for n, company in enumerate(companies(rows, rng)):
                views = zip(pictures.items(), company, strict=True)
                example = {view: inverted(crop(picture, rng), images[row]) for (view, picture), row in views}
                yield f"{again}-{label}-{n}", example | {"label": label}


def companies(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which digits are shown together: [N, 5], each column a permutation of the N rows, no row twice in a line.

    The columns are one permutation, each rotated by another amount. With fewer than five digits some must meet
    themselves.
    """
    turns = np.resize(rng.permutation(len(rows)), len(BACKGROUNDS))
    order = rng.permutation(rows)
    return np.stack([np.roll(order, turn) for turn in turns], axis=1)


def crop(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random square of a picture [H, W, 3], uint8 [SIDE, SIDE, 3]."""
    row, column = rng.integers(np.subtract(picture.shape[:2], SIDE) + 1)
    return picture[row : row + SIDE, column : column + SIDE]


def inverted(square: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """Equation (1): the square [SIDE, SIDE, 3] with inverted colours where the digit [SIDE, SIDE] has ink."""
    return np.where(digit[..., None] > INK, 255 - square, square)


def backgrounds() -> dict[str, np.ndarray]:
    """The picture behind each view, uint8 [H, W, 3], out of the wheel of scikit-image.

    Raises:
        RuntimeError: the package is not installed, or a picture is not the known one.
    """
    from PIL import Image

    pictures = {}
    for view, (name, sha256) in BACKGROUNDS.items():
        path = locate("PolyDigits", "scikit-image>=0.26", f"skimage/data/{name}")
        if not known(path.read_bytes(), sha256):
            raise RuntimeError(f"PolyDigits: {path} is not the picture this data set is made of.")
        pictures[view] = np.asarray(Image.open(path))
    return pictures
