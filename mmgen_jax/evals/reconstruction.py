"""How well a model gives back what it is given: every modality from all those of an example that are present.

real numbers   "reconstruction/image_mse"         mean square error of a value
texts          "reconstruction/text_error_rate"   edit distance over the length of the true text, both decoded
classes        "reconstruction/label_accuracy"    share of equal ones
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mmgen_jax.evals.sampling import batches
from mmgen_jax.types import EvalData, Key, Modality, Model, Variables


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Errors of `model.reconstruct(variables, batch, key) -> {name: [B, *shape]}` on up to `limit` test examples."""

    limit: int = 1000

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has no method `reconstruct`."""
        if not callable(getattr(model, "reconstruct", None)):
            raise ValueError(
                f"Reconstruction needs a model with a method reconstruct(), which {type(model).__name__} has not"
            )

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        rows = np.random.default_rng(0).permutation(len(data.test))[: self.limit]
        test = data.test.only(model.modalities).take(rows)
        reconstruct = jax.jit(model.reconstruct)
        made = batches(lambda i, batch: reconstruct(variables, test.take(batch), jax.random.fold_in(key, i)), len(rows))
        values = {}
        for name in made:  # a model may not make all of its modalities
            there = test.present[name]
            if there.any():
                kind, value = compare(model.modalities[name], test.values[name][there], made[name][there])
                values[f"reconstruction/{name}_{kind}"] = value
        return values


def compare(modality: Modality, truth: np.ndarray, made: np.ndarray) -> tuple[str, float]:
    """What is measured, and its value, of examples [N, *shape] of a modality."""
    if np.issubdtype(modality.dtype, np.floating):
        return "mse", float(np.mean((truth - made).astype(np.float64) ** 2))
    if len(modality.shape) == 0:
        return "accuracy", float(np.mean(truth == made))
    texts = [[modality.decode(x) for x in xs] for xs in (truth, made)]
    errors = sum(edit_distance(a, b) for a, b in zip(*texts, strict=True))
    return "error_rate", errors / max(1, sum(map(len, texts[0])))


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The least number of insertions, deletions and substitutions that turn a into b (Levenshtein 1966).

    By rows of D_ij = min(D_i-1,j + 1, D_i,j-1 + 1, D_i-1,j-1 + [a_i != b_j]). The middle term runs along the row; it is
    a running minimum of D_ij - j.
    """
    codes = {item: i for i, item in enumerate({*a, *b})}
    b_codes = np.array([codes[item] for item in b], int)
    columns = np.arange(len(b) + 1)
    row = columns
    for i, item in enumerate(a, 1):
        step = np.minimum(row[1:] + 1, row[:-1] + (b_codes != codes[item]))
        row = np.minimum.accumulate(np.concatenate([[i], step]) - columns) + columns
    return int(row[-1])
