"""Batches as a pure function of seed and step.

The examples of epoch e stand in the order of a permutation drawn from (seed, e). Epochs follow one another without a
gap, and the batch at `step` is the B positions from step * B on. So a run that resumes at a step needs nothing but the
step, and every process of a large run can take its own rows of the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmgen_jax.types import Batch, Modality, Source


def encode(example: Mapping[str, Any], modalities: Mapping[str, Modality]) -> tuple[dict, dict]:
    """One raw example as arrays: `(values, present)`, both with every modality.

    What is absent or None gives zeros and present False. Raises ValueError, naming the modality, for what does not fit.
    """
    values, present = {}, {}
    for name, modality in modalities.items():
        raw = example.get(name)
        present[name] = np.bool_(raw is not None)
        try:
            value = np.zeros(modality.shape, modality.dtype) if raw is None else modality.encode(raw)
        except ValueError as error:
            raise ValueError(f'"{name}": {error}') from None
        if value.shape != modality.shape or value.dtype != modality.dtype:
            raise ValueError(
                f'"{name}": must become {modality.dtype}{list(modality.shape)}, not {value.dtype}{list(value.shape)}.'
            )
        values[name] = value
    return values, present


def load(source: Source, modalities: Mapping[str, Modality], limit: int | None = None) -> Batch:
    """All examples of a split (or the first `limit`) in memory, as one Batch of numpy arrays.

    Raises:
        ValueError: there are no examples, or one does not fit; the sentence names its index and the modality.
    """
    n = len(source) if limit is None else min(limit, len(source))
    if n < 1:
        raise ValueError("The data set has no examples.")
    # Filled in place: a list of examples to stack would hold everything twice.
    values = {name: np.zeros((n, *m.shape), m.dtype) for name, m in modalities.items()}
    present = {name: np.zeros(n, bool) for name in modalities}
    for i in range(n):
        one, there = _encoded(source, i, modalities)
        for name in modalities:
            values[name][i], present[name][i] = one[name], there[name]
    return Batch(values, present)


def order(n: int, seed: int, start: int, stop: int) -> np.ndarray:
    """The examples at positions start..stop of the endless line of shuffled epochs, int [stop - start]."""
    epochs = range(start // n, (stop - 1) // n + 1)
    line = np.concatenate([permutation(n, seed, epoch) for epoch in epochs] or [np.zeros(0, int)])
    return line[start - epochs.start * n :][: stop - start]


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the n examples in one epoch; Philox, so that epochs need no state and seeds do not overlap."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


def batches(data: Batch, batch_size: int, *, seed: int, steps: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
    """(step, batch) for each step from `start` up to `steps`, of a split in memory (see `load`)."""
    for step in range(start, steps):
        yield step, data.take(order(len(data), seed, step * batch_size, (step + 1) * batch_size))


def _encoded(source: Source, i: int, modalities: Mapping[str, Modality]) -> tuple[dict, dict]:
    try:
        return encode(source[i], modalities)
    except ValueError as error:
        raise ValueError(f"example {i}, {error}") from None
