"""From examples in Python to a data set of tensorflow-datasets on disk: made on first use, read from then on."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmgen_jax.data.catalogue import Selected, Stored
from mmgen_jax.types import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a data set is made, and under which name it is kept: <data_dir>/<name>/<config>/<version>.

    owner: whose data set it is, as the line on the console says.
    what, takes: how much is made ("5,000 examples"), and how long that takes ("seconds").
    about: one sentence that tfds notes with the data set.
    version: another one for other examples, so that what was prepared before is not taken for them.
    features: () -> its tfds features: called when needed, since that package takes its time to import.
    supervised: the features of input and target.
    examples: split -> (key, example) of each of its examples; the keys of a split all differ.
    """

    owner: str
    name: str
    config: str
    version: str = "1.0.0"
    what: str
    takes: str = "seconds"
    about: str
    features: Callable[[], dict[str, Any]]
    supervised: tuple[str, str]
    examples: Callable[[str], Iterator[tuple[int | str, dict[str, Any]]]]

    def source(self, split: str, data_dir: str | None) -> Source:
        """The examples of a split under the names of the features, prepared now if they are not yet.

        data_dir: the folder of tensorflow-datasets; None is its usual one.
        """
        builder = self.builder(data_dir)
        folder = Path(builder.data_dir)
        if not complete(folder):
            prepare(self, folder)
        return Selected(Stored(folder, split), {name: name for name in builder.info.features})

    def builder(self, data_dir: str | None) -> Any:
        """The tensorflow-datasets builder."""
        import tensorflow_datasets as tfds

        recipe = self

        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version(recipe.version)
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=recipe.config, description=recipe.about)]
            pkg_dir_path = Path(__file__).parent  # tfds would otherwise look for the files of a package of this name
            name = recipe.name

            def _info(self) -> Any:
                features = tfds.features.FeaturesDict(recipe.features())
                return tfds.core.DatasetInfo(
                    builder=self, description=recipe.about, features=features, supervised_keys=recipe.supervised
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {split: self._generate_examples(split) for split in ("train", "test")}

            def _generate_examples(self, split: str) -> Iterator[tuple[int | str, dict[str, Any]]]:
                return recipe.examples(split)

        return Builder(config=self.config, data_dir=data_dir, file_format="array_record")


def prepare(recipe: Recipe, target: Path) -> None:
    """Writes the data set into the folder `target`.

    It is written beside its place and then renamed into it: whoever is killed half way leaves nothing that looks like a
    data set, and of two processes that prepare at once the slower finds the other's, whose examples are the same.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    line = f"{recipe.owner}: preparing {recipe.what} in {target} ({recipe.takes}, once) ..."
    print(line, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".preparing-", dir=target.parent) as folder:
        fresh = recipe.builder(folder)
        # tfds reports to the console in several bars and lines.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fresh.download_and_prepare()
        if target.exists() and not complete(target):  # what a copy cut short left
            os.rename(target, Path(folder) / "wreck")
        try:
            os.rename(fresh.data_dir, target)
        except OSError:
            if not complete(target):
                raise


def complete(folder: Path) -> bool:
    """Whether a data set is there: tfds writes this file last."""
    return (folder / "dataset_info.json").exists()


def png(image: np.ndarray) -> io.BytesIO:
    """A picture, uint8 [H, W] or [H, W, 3], as a file: of an array tfds would make one through TensorFlow."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    file.seek(0)
    return file
