"""Data sets of the tensorflow-datasets catalogue, read without TensorFlow.

What is on disk is read by its description alone (features.json): tfds would construct its Audio and Video features
through TensorFlow, although what is stored are plain integers and pictures, and would import whatever module the file
names.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmgen_jax.data.kept import digest
from mmgen_jax.data.source import check_split
from mmgen_jax.types import Source

# Features that hold others are walked here; only leaves are left to tfds, so no name in a file is ever imported.
NESTED = ("FeaturesDict", "Sequence", "Video")
LEAVES = ("Audio", "BBoxFeature", "ClassLabel", "Image", "LabeledImage", "Scalar", "Tensor", "Text")


@dataclasses.dataclass(frozen=True)
class Tfds:
    """`Tfds("coco_captions", {"image": "image", "text": "captions/text"})`: a catalogue set, prepared beforehand.

    name: as tfds has it, with config and version if needed ("emnist/digits:3.1.0").
    features: modality -> the feature it is read from; a "/" leads into nested features, of several texts the first
        is taken.
    train, test: the tfds splits behind our two, slices included ("train[:90%]").
    data_dir: the folder of tensorflow-datasets; None is its usual one (`TFDS_DATA_DIR`, or ~/tensorflow_datasets).
    """

    name: str
    features: Mapping[str, str]
    train: str = "train"
    test: str = "test"
    data_dir: str | None = None

    def source(self, split: str) -> Source:
        """Examples under modality names, in plain types.

        Raises:
            FileNotFoundError: the data set is not prepared.
            ValueError: no such data set, split or feature; no examples in the split; not stored as array_record.
        """
        check_split(self, split)
        folder = self._folder()
        expression = getattr(self, split)
        examples = self._from_catalogue(expression) if folder is None else Stored(folder, expression)
        if len(examples) == 0:
            raise ValueError(f'Tfds: split "{expression}" of {self.name} has no examples.')
        first = examples[0]
        for name, path in self.features.items():
            try:
                _at(first, path)
            except KeyError:
                raise ValueError(
                    f'Tfds: features["{name}"] is "{path}", but {self.name} has {", ".join(_paths(first))}.'
                ) from None
        return Selected(examples, self.features)

    def _folder(self) -> Path | None:
        """Where the newest prepared version is, or None."""
        from tensorflow_datasets.core.constants import get_default_data_dir

        name, _, version = self.name.partition(":")
        root = Path(self.data_dir or get_default_data_dir()).expanduser() / name
        found = [path.parent for path in root.glob(f"{version or '*'}/features.json")]
        return max(found, key=lambda path: [int(n) if n.isdigit() else -1 for n in path.name.split(".")], default=None)

    def _from_catalogue(self, split: str) -> Source:
        """As tfds itself would find it: in an older layout, or in a test through `tfds.testing.mock_data`."""
        import tensorflow_datasets as tfds

        arguments = f"{self.name!r}, data_dir={self.data_dir!r}, file_format='array_record'"
        try:
            builder = tfds.builder(self.name, data_dir=self.data_dir, file_format="array_record")
            return builder.as_data_source(split)
        except tfds.core.DatasetNotFoundError:
            raise ValueError(f'Tfds: "{self.name}" is not in the catalogue of tensorflow-datasets.') from None
        except (AssertionError, ImportError, KeyError, NotImplementedError):
            raise FileNotFoundError(
                f"Tfds: {self.name} is not prepared: tfds.builder({arguments}).download_and_prepare() does so."
            ) from None


def prepared(data: Tfds) -> bool:
    """Whether the data set is on disk. Neither reads it nor downloads anything."""
    return data._folder() is not None


class Stored:
    """One split of a data set in `folder`, as tfds wrote it in array_record files. Examples as tfds gives them.

    fingerprint: changes with the files: their names, sizes and times, and what tfds noted on them.
    """

    def __init__(self, folder: Path, split: str) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
        from tensorflow_datasets.core import dataset_info

        info = dataset_info.read_proto_from_builder_dir(str(folder))
        if info.file_format != "array_record":
            raise ValueError(
                f"Tfds: {folder} is stored as {info.file_format or 'tfrecord'}, which has no random access: "
                "prepare it with file_format='array_record'."
            )
        splits = dataset_info.get_split_dict_from_proto(info, folder)
        try:
            files = splits[split].file_instructions
        except (KeyError, ValueError):
            raise ValueError(f'Tfds: split "{split}" is not in {folder}, which has {", ".join(splits)}.') from None
        if not files:
            raise ValueError(f'Tfds: split "{split}" of {folder} has no examples.')
        self.features = connector(json.loads((folder / "features.json").read_text()))
        self.records = ArrayRecordDataSource(files)
        stats = [(Path(file.filename).name, os.stat(file.filename)) for file in files]
        self.fingerprint = digest(
            *folder.parts[-3:],
            split,
            *((folder / name).read_bytes() for name in ("dataset_info.json", "features.json")),
            *(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats),
        )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.features.deserialize_example_np(self.records[i])


class Selected:
    """Of each example of `source` the features that `paths` (modality -> path) names, in plain types."""

    def __init__(self, source: Source, paths: Mapping[str, str]) -> None:
        self.source = source
        self.paths = dict(paths)

    @property
    def fingerprint(self) -> str | None:
        return digest(getattr(self.source, "fingerprint", None), json.dumps(self.paths))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example = self.source[i]
        return {name: tidy(_at(example, path)) for name, path in self.paths.items()}


def connector(feature: Mapping[str, Any]) -> Any:
    """The tfds feature that reads what `feature`, a node of features.json, describes.

    Audio becomes a Tensor and Video a Sequence of Image: they are stored alike, and need no TensorFlow.

    Raises:
        ValueError: not one of the features of tfds that can be read so.
    """
    from tensorflow_datasets import features as tfds

    kind = feature.get("type") or feature.get("pythonClassName")  # in tfds' own order of precedence
    package, _, name = str(kind).rpartition(".")
    if not package.startswith("tensorflow_datasets.core.features") or name not in (*NESTED, *LEAVES):
        raise ValueError(f"Tfds: a feature of type {kind} cannot be read.")
    if name == "FeaturesDict":
        inside = feature.get("featuresDict") or feature["content"]
        return tfds.FeaturesDict({key: connector(value) for key, value in inside["features"].items()})
    if name == "Sequence":
        return tfds.Sequence(connector(feature["sequence"]["feature"]), length=_size(feature["sequence"]["length"]))
    if name == "Video":
        frames, *frame = _shape(feature["video"])
        image = tfds.Image(shape=frame, dtype=np.dtype(feature["video"]["dtype"]))
        return tfds.Sequence(image, length=frames)
    if name == "Audio" and not feature["audio"].get("lazyDecode"):
        return tfds.Tensor(shape=_shape(feature["audio"]), dtype=np.dtype(feature["audio"]["dtype"]))
    return tfds.FeatureConnector.from_json(feature)


def tidy(value: Any) -> Any:
    """bytes -> str; the first of several texts, None if there are none; frames -> one array; else as it is."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        value = value.ravel().tolist()
    if not isinstance(value, list):
        return value
    if not value:
        return None
    return np.stack(value) if isinstance(value[0], np.ndarray) else tidy(value[0])


def _shape(node: Mapping[str, Any]) -> tuple[int | None, ...]:
    return tuple(_size(n) for n in node["shape"]["dimensions"])


def _size(n: str | int) -> int | None:
    """JSON has 64-bit integers as strings, and -1 where a size varies."""
    return None if int(n) < 0 else int(n)


def _at(example: Any, path: str) -> Any:
    """The value at `path`. A feature's name may itself hold a "/", so the whole path is tried first."""
    if not isinstance(example, Mapping):
        raise KeyError(path)
    if path in example:
        return example[path]
    head, _, rest = path.partition("/")
    return _at(example[head], rest)


def _paths(example: Mapping[str, Any]) -> list[str]:
    """All paths to what is not itself a dict."""
    return [
        path
        for key, value in example.items()
        for path in ([f"{key}/{inner}" for inner in _paths(value)] if isinstance(value, Mapping) else [key])
    ]
