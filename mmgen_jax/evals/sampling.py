"""What evaluators ask of a model: which examples, and the answers in batches that one compiled program serves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Model, Variables

BATCH = 250  # examples in one compiled call


def choose(data: Batch, names: Sequence[str], limit: int) -> np.ndarray:
    """Indices of up to `limit` examples in which all of `names` are present, always the same ones.

    Drawn, rather than the first: splits are often sorted by class.
    """
    rows = np.flatnonzero(np.logical_and.reduce([np.ones(len(data), bool), *(data.present[name] for name in names)]))
    return np.sort(np.random.default_rng(0).permutation(rows)[:limit])


def generate(
    model: Model, variables: Variables, key: Key, given: Mapping[str, np.ndarray], n: int, prior: Any = None
) -> dict[str, np.ndarray]:
    """n examples of every modality, [n, *shape] each, with those in `given`, [n, *shape] each, as they are; {}: none.

    All modalities are made whatever is given, so that one compiled program serves all sets of given ones. `prior`, if
    any, is one that was fitted to the model's codes.
    """
    there = {name: np.full(n, name in given) for name in model.modalities}
    values = {name: given.get(name, np.zeros((n, *m.shape), m.dtype)) for name, m in model.modalities.items()}
    parts = Batch(values, there)
    return batches(lambda i, rows: draw(model, variables, jax.random.fold_in(key, i), parts.take(rows), prior), n)


def answers(
    model: Model, variables: Variables, test: Batch, key: Key, limit: int, targets: Collection[str]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(given, target, made, true) for each modality that is given alone, and each of `targets` made of it.

    made, true: [n, *shape] each, of up to `limit` test examples that have both.
    """
    for given in track(list(model.modalities), "answers"):
        rows = choose(test, (given,), limit)
        if not len(rows) or not set(targets) - {given}:
            continue
        made = generate(model, variables, fold_name(key, given), {given: test.values[given][rows]}, len(rows))
        for target in targets:
            there = test.present[target][rows]
            if target in made and target != given and there.any():
                yield given, target, made[target][there], test.values[target][rows][there]


@functools.partial(jax.jit, static_argnums=0)
def draw(model: Model, variables: Variables, key: Key, given: Batch, prior: Any = None) -> dict[str, Array]:
    """What the model makes of a batch of parts."""
    fitted = {} if prior is None else {"prior": prior}
    return model.sample(variables, key, len(given), given=given, **fitted)


def batches(call: Callable[[int, np.ndarray], Mapping[str, Array]], n: int) -> dict[str, np.ndarray]:
    """The answers of `call(number of the batch, rows)` for the rows 0 to n - 1, joined, [n, ...] each.

    Every batch has the same size, the last being filled up with the first rows, so that `call` is compiled once.
    Raises ValueError if n is 0.
    """
    if n < 1:
        raise ValueError("there is nothing to evaluate: no test example has the modalities that are needed")
    size = min(BATCH, n)
    rows = np.arange(-(-n // size) * size).reshape(-1, size) % n
    parts = [jax.device_get(dict(call(i, batch))) for i, batch in enumerate(rows)]
    return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}
