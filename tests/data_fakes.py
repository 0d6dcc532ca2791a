"""Made-up data sets, prepared through tfds as those of its catalogue are."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def prepare(folder: Path, name: str, features: dict[str, Any], splits: dict[str, list[dict]], config: str = "") -> None:
    """A data set of any name and features, prepared through tfds."""

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []
        pkg_dir_path = folder

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: enumerate(examples) for split, examples in splits.items()}

        def _generate_examples(self) -> None: ...

    Small.name = name
    with quietly():
        Small(data_dir=folder, file_format="array_record").download_and_prepare()
