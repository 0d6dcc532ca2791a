"""Catalogue sets: as the real builders prepare them, as tfds' mock imagines them, and what is no honest data set."""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_fakes import prepare, quietly

from mmgen_jax.data import Tfds
from mmgen_jax.data import prepared as is_prepared
from mmgen_jax.data.builders.preparing import png
from mmgen_jax.data.catalogue import connector, tidy

FEATURES = "tensorflow_datasets.core.features"
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)


@pytest.fixture(scope="module", params=["mnist", "fashion_mnist"])
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The catalogue's own builder on 10 + 2 local images; only its reading of IDX files, which needs TensorFlow, is
    replaced."""
    from tensorflow_datasets.image_classification import mnist

    folder = tmp_path_factory.mktemp("tfds")
    files = {name: name for name in ("train_data", "train_labels", "test_data", "test_labels")}
    rows = {"train": slice(0, 10), "test": slice(10, 12)}
    with (
        mock.patch.object(tfds.download.DownloadManager, "download_and_extract", lambda self, urls: files),
        mock.patch.object(mnist, "_TRAIN_EXAMPLES", 10),
        mock.patch.object(mnist, "_TEST_EXAMPLES", 2),
        mock.patch.object(
            mnist, "_extract_mnist_images", lambda path, n: [png(x) for x in PIXELS[rows[path.split("_")[0]]]]
        ),
        mock.patch.object(mnist, "_extract_mnist_labels", lambda path, n: np.arange(12)[rows[path.split("_")[0]]] % 10),
        quietly(),
    ):
        tfds.builder(request.param, data_dir=folder, file_format="array_record").download_and_prepare()
    return request.param, folder


def test_a_catalogue_builder_is_read_back(prepared: tuple[str, Path]) -> None:
    name, folder = prepared
    data = Tfds(name, {"image": "image", "label": "label"}, data_dir=str(folder))
    train, test = data.source("train"), data.source("test")
    assert len(train) == 10 and len(test) == 2
    assert sorted(int(train[i]["label"]) for i in range(10)) == list(range(10))
    for i in range(10):
        np.testing.assert_array_equal(train[i]["image"][..., 0], PIXELS[train[i]["label"]])


def test_slices_of_splits(prepared: tuple[str, Path]) -> None:
    name, folder = prepared
    data = Tfds(name, {"label": "label"}, train="train[:80%]", test="train[80%:]+test", data_dir=str(folder))
    assert len(data.source("train")) == 8 and len(data.source("test")) == 4


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"features": {"x": "pixels"}}, r'Tfds: features\["x"\] is "pixels", but .*mnist has image, label.'),
        ({"features": {"x": "image/left"}}, r'Tfds: features\["x"\] is "image/left"'),
        ({"features": {"x": "image"}, "train": "trian"}, 'Tfds: split "trian" is not in .*, which has train, test.'),
        ({"features": {"x": "image"}, "train": "train[:0]"}, r'Tfds: split "train\[:0\]" of .* has no examples.'),
    ],
)
def test_errors_of_a_prepared_set(prepared: tuple[str, Path], fields: dict[str, Any], sentence: str) -> None:
    name, folder = prepared
    with pytest.raises(ValueError, match="^" + sentence):
        Tfds(name, data_dir=str(folder), **fields).source("train")


def test_the_error_of_a_set_that_is_not_prepared_says_how(tmp_path: Path) -> None:
    call = r"tfds.builder\('cifar10', data_dir='.*', file_format='array_record'\).download_and_prepare\(\)"
    with pytest.raises(FileNotFoundError, match="^Tfds: cifar10 is not prepared: " + call):
        Tfds("cifar10", {"image": "image"}, data_dir=str(tmp_path)).source("train")


def test_errors_of_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='^Tfds: "no_such_set" is not in the catalogue of tensorflow-datasets.$'):
        Tfds("no_such_set", {"image": "image"}, data_dir=str(tmp_path)).source("train")
    with pytest.raises(ValueError, match='^Tfds: split must be "train" or "test", not \'validation\'.$'):
        Tfds("mnist", {"image": "image"}, data_dir=str(tmp_path)).source("validation")


def test_nested_texts_lists_of_frames_and_names_with_a_slash(tmp_path: Path) -> None:
    captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
    frames = tfds.features.Sequence(tfds.features.Image(shape=(28, 28, 1)))
    features = {"captions": captions, "clip": frames, "audio/file": tfds.features.Text()}
    examples = [
        {"captions": [{"id": 1, "text": "é one"}, {"id": 2, "text": "two"}], "audio/file": "a.wav"},
        {"captions": [], "audio/file": ""},
    ]
    examples = [example | {"clip": [png(x) for x in PIXELS[:3]]} for example in examples]
    prepare(tmp_path, "small", features, {"train": examples, "test": examples[:1]}, config="large")
    paths = {"text": "captions/text", "video": "clip", "file": "audio/file"}
    source = Tfds("small/large", paths, data_dir=str(tmp_path)).source("train")
    found = sorted((source[i] for i in range(2)), key=lambda example: example["file"])
    assert [example["text"] for example in found] == [None, "é one"]  # no caption: a missing part
    assert [example["file"] for example in found] == ["", "a.wav"]
    np.testing.assert_array_equal(found[0]["video"][..., 0], PIXELS[:3])
    with pytest.raises(ValueError, match="but small/large has .*captions/text"):
        Tfds("small/large", {"text": "captions/words"}, data_dir=str(tmp_path)).source("train")


def test_the_newest_version_is_read(tmp_path: Path) -> None:
    for version, text in (("1.0.0", "old"), ("10.0.0", "new")):
        prepare(tmp_path, "small", {"text": tfds.features.Text()}, {"train": [{"text": text}]})
        (tmp_path / "small" / "1.0.0").rename(tmp_path / "small" / f"v{version}")
    for path in (tmp_path / "small").iterdir():
        path.rename(path.with_name(path.name[1:]))
    assert Tfds("small", {"text": "text"}, data_dir=str(tmp_path)).source("train")[0] == {"text": "new"}
    assert Tfds("small:1.0.0", {"text": "text"}, data_dir=str(tmp_path)).source("train")[0] == {"text": "old"}


def test_what_is_on_disk_is_known_without_reading_it(tmp_path: Path) -> None:
    def there(name: str) -> bool:
        return is_prepared(Tfds(name, {"text": "text"}, data_dir=str(tmp_path)))

    assert not there("small")
    prepare(tmp_path, "small", {"text": tfds.features.Text()}, {"train": [{"text": "a"}]})
    assert there("small") and there("small:1.0.0")
    assert not there("small:2.0.0") and not there("smaller")


def test_a_fingerprint_changes_with_what_is_read(tmp_path: Path) -> None:
    def fingerprint(features: dict[str, str], train: str = "train", split: str = "train") -> str:
        return Tfds("small", features, train=train, data_dir=str(tmp_path)).source(split).fingerprint

    text, both = {"text": "text"}, {"text": "text", "again": "text"}
    examples = [{"text": "a"}, {"text": "b"}]
    prepare(tmp_path, "small", {"text": tfds.features.Text()}, {"train": examples, "test": examples})
    before = fingerprint(text)
    assert before == fingerprint(text)
    assert len({before, fingerprint(both), fingerprint(text, "train[:1]"), fingerprint(text, split="test")}) == 4
    (records,) = (tmp_path / "small" / "1.0.0").glob("*train*")
    os.utime(records, ns=(0, records.stat().st_mtime_ns + 1))  # as if written again
    after = fingerprint(text)
    assert after != before
    info = tmp_path / "small" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text() + "\n")
    assert fingerprint(text) not in (before, after)


def declare(folder: Path, name: str, **stored: dict[str, Any]) -> None:
    """Describes features as TensorFlow's own connectors would have: they store the same bytes."""
    path = folder / name / "1.0.0" / "features.json"
    features = json.loads(path.read_text())
    features["featuresDict"]["features"].update(stored)
    path.write_text(json.dumps(features))


def test_audio_and_video_are_read_without_tensorflow(tmp_path: Path) -> None:
    clips = [np.arange(5), np.arange(900) - 450]
    features = {
        "audio": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        "video": tfds.features.Sequence(tfds.features.Image(shape=(28, 28, 1)), length=4),
    }
    examples = [{"audio": clip, "video": [png(x) for x in PIXELS[i : i + 4]]} for i, clip in enumerate(clips)]
    prepare(tmp_path, "spoken", features, {"test": examples})
    audio = {"shape": {"dimensions": ["-1"]}, "dtype": "int64", "fileFormat": "wav", "sampleRate": "8000"}
    video = {"shape": {"dimensions": ["4", "28", "28", "1"]}, "dtype": "uint8", "encodingFormat": "png"}
    declare(
        tmp_path,
        "spoken",
        audio={"pythonClassName": f"{FEATURES}.audio_feature.Audio", "audio": audio | {"encoding": "NONE"}},
        video={"pythonClassName": f"{FEATURES}.video_feature.Video", "video": video},
    )
    source = Tfds("spoken", {"a": "audio", "v": "video"}, train="test", data_dir=str(tmp_path)).source("train")
    for example in sorted((source[i] for i in range(2)), key=lambda example: len(example["a"])):
        i = int(len(example["a"]) == 900)
        np.testing.assert_array_equal(example["a"], clips[i])
        assert example["v"].shape == (4, 28, 28, 1) and example["v"].dtype == np.uint8
        np.testing.assert_array_equal(example["v"][..., 0], PIXELS[i : i + 4])
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "node",
    [
        {"pythonClassName": "antigravity.Image", "image": {}},
        {"pythonClassName": f"{FEATURES}.text_feature.Text", "type": "antigravity.Text", "content": {}},
        {"pythonClassName": f"{FEATURES}.dataset_feature.Dataset", "sequence": {}},
        {"python_class_name": "antigravity.Text", "text": {}},
    ],
)
def test_no_module_that_a_file_names_is_imported(node: dict[str, Any]) -> None:
    dictionary = {
        "pythonClassName": f"{FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": {"x": node}},
    }
    with pytest.raises(ValueError, match="^Tfds: a feature of type .* cannot be read.$"):
        connector(dictionary)
    assert "antigravity" not in sys.modules


def test_other_file_formats_are_refused(tmp_path: Path) -> None:
    prepare(tmp_path, "small", {"text": tfds.features.Text()}, {"train": [{"text": "a"}]})
    path = tmp_path / "small" / "1.0.0" / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="is stored as tfrecord, which has no random access"):
        Tfds("small", {"text": "text"}, data_dir=str(tmp_path)).source("train")


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("mnist", "image", np.ndarray),
        ("celeb_a", "attributes/Bald", bool | np.bool_ | np.ndarray),
        ("davis", "video/frames", np.ndarray),
        ("gref", "objects/refexp/raw", str),
    ],
)
def test_mock_data_passes_through(name: str, path: str, kind: type, tmp_path: Path) -> None:
    """The mock gives str for bytes, arrays for numbers and lists, and ragged sequences of texts."""
    with tfds.testing.mock_data(num_examples=3):
        source = Tfds(name, {"x": path}, data_dir=str(tmp_path)).source("train")
        assert len(source) == 3 and isinstance(source[2]["x"], kind)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\xc3\xa9", "é"),
        ([b"a", b"b"], "a"),
        (np.array([b"a", b"b"], object), "a"),
        (np.array([["a"], ["b"]]), "a"),
        ([[b"a"], [b"b"]], "a"),
        ([], None),
        (3, 3),
    ],
)
def test_tidy(value: Any, expected: Any) -> None:
    assert tidy(value) == expected
