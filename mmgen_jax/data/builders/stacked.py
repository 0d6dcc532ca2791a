"""StackedDigits: pictures of a thousand classes, to see how many of them a generator leaves out.

Three digits drawn at random are the red, green and blue of one picture; its class is the number they spell,

    label = 100 red + 10 green + blue                                                                       (1)

which is the Stacked MNIST of Metz et al. 2017 (arXiv:1611.02163, D.1.1), with the sizes of Lin et al. 2018
(arXiv:1712.04086): 128,000 pictures to train on, and as many to test on as generators are asked for, 26,000. Nothing is
stored: a picture is put together whenever it is asked for, and which digits are in it follows from its number.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np

from mmgen_jax.data.builders.handwritten import handwritten
from mmgen_jax.data.source import check_split
from mmgen_jax.types import Source

CHANNELS = 3
Origin = Literal["offline", "mnist", "fashion_mnist"]


@dataclasses.dataclass(frozen=True)
class StackedDigits:
    """Pictures uint8 [28, 28, 3] and their class, 0 to 999.

    digits: "offline", the 5,000 of `Digits`: 4,000 to train on, 1,000 to test, as many of each class; or "mnist" or
        "fashion_mnist" of the tensorflow-datasets catalogue, prepared beforehand, of which "mnist" has not quite as
        many of each class: the KL divergence of its thousand from uniform is 0.004.
    train, test: the number of pictures in each split. The first ones are the same whatever the number.
    seed: which draw.
    data_dir: the folder of tensorflow-datasets; None is its usual one (`TFDS_DATA_DIR`, or ~/tensorflow_datasets).
    """

    digits: Origin = "offline"
    train: int = 128_000
    test: int = 26_000
    seed: int = 0
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if self.digits not in get_args(Origin):
            raise ValueError(f"StackedDigits: digits must be one of {get_args(Origin)}, not {self.digits!r}.")
        for field, least in (("train", 1), ("test", 1), ("seed", 0)):
            value = getattr(self, field)
            if type(value) is not int or value < least:
                raise ValueError(f"StackedDigits: {field} must be an integer of at least {least}, not {value!r}.")

    def source(self, split: str) -> Source:
        """Examples {"image", "label"} of one split.

        Raises:
            ValueError: no such split.
            FileNotFoundError: the set of the catalogue is not prepared.
            RuntimeError: the package that holds the offline digits is not installed.
        """
        check_split(self, split)
        images, labels = handwritten("StackedDigits", self.digits, split, self.data_dir)
        rng = np.random.default_rng((self.seed, split == "test"))
        return Stacks(images, labels, rng.integers(len(images), size=(getattr(self, split), CHANNELS)))


class Stacks:
    """A Source of stacks of `images` [N, H, W] with `labels` [N] below 10, `rows` [n, C] saying which."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
        self.images, self.labels, self.rows = images, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        rows = self.rows[i]
        label = 0
        for digit in self.labels[rows]:  # equation (1)
            label = 10 * label + int(digit)
        return {"image": np.moveaxis(self.images[rows], 0, -1), "label": label}
