"""What evaluators ask of a model: which examples, and the answers in batches that one compiled program serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mmgen_jax.types import Array, Batch, Key, Model, Variables

BATCH = 250  # examples in one compiled call


def choose(data: Batch, names: Sequence[str], limit: int) -> np.ndarray:
    """Indices of up to `limit` examples in which all of `names` are present, always the same ones.

    Drawn, rather than the first: splits are often sorted by class.
    """
    rows = np.flatnonzero(np.logical_and.reduce([data.present[name] for name in names]))
    return np.sort(np.random.default_rng(0).permutation(rows)[:limit])


def generate(
    model: Model,
    variables: Variables,
    key: Key,
    given: Mapping[str, np.ndarray],
    targets: tuple[str, ...],
    n: int,
) -> dict[str, np.ndarray]:
    """n examples of `targets`, [n, *shape] each, for the values of `given`, [n, *shape] each; {} for none."""
    size = min(BATCH, n)

    @jax.jit
    def draw(variables: Variables, key: Key, given: Mapping[str, Array]) -> dict[str, Array]:
        made = model.sample(variables, key, size, given=given or None, targets=targets)
        return {name: made[name] for name in targets}

    def part(i: int, rows: np.ndarray) -> dict[str, Array]:
        return draw(variables, jax.random.fold_in(key, i), {name: x[rows] for name, x in given.items()})

    return batches(part, n)


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
