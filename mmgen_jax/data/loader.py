"""Batches as a pure function of seed and step.

The examples of epoch e stand in the order of a permutation drawn from (seed, e). Epochs follow one another without a
gap, and the batch at `step` is the B positions from step * B on. So a run that resumes at a step needs nothing but the
step, and every process of a large run can take its own rows of the same batch.

What fits into memory is encoded once (`load`, which keeps it on disk for the next start) and then indexed; what does
not is read as it is needed (`stream`), from the same positions. No array is used again for another batch: on a CPU, JAX
shares memory with the arrays it is fed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmgen_jax.data import kept
from mmgen_jax.types import Batch, Modality, Source

Arrays = dict[str, np.ndarray]


def encode(example: Mapping[str, Any], modalities: Mapping[str, Modality]) -> tuple[Arrays, Arrays]:
    """One raw example as arrays: `(values, present)`, both with every modality.

    What is absent or None gives zeros and present False. Raises ValueError, naming the modality, for what does not fit.
    """
    values, present = {}, {}
    for name, modality in modalities.items():
        raw = example.get(name)
        present[name] = np.bool_(raw is not None)
        values[name] = np.zeros(modality.shape, modality.dtype) if raw is None else _fitting(name, modality, raw)
    return values, present


def load(source: Source, modalities: Mapping[str, Modality], limit: int | None = None) -> Batch:
    """All examples of a split (or the first `limit`) in memory, as one Batch of numpy arrays.

    What is read from a data set on disk is decoded once and kept: see `data/kept.py`.

    Raises:
        ValueError: there are no examples, or one does not fit; the sentence names its index and the modality.
    """
    size = _size(source)
    count = size if limit is None else min(limit, size)
    path = kept.folder(source, modalities, count)
    data = kept.read(path, modalities, count) if path else None
    if data is None:
        data = Batch(*gather(source, modalities, range(count)))
        if path:
            kept.write(path, data)
    return data


def gather(source: Source, modalities: Mapping[str, Modality], indices: Sequence[int]) -> tuple[Arrays, Arrays]:
    """`(values, present)` of the examples at `indices`, values[name]: [len(indices), *shape].

    Raises:
        ValueError: an example does not fit; the sentence names its index and the modality.
    """
    # Filled in place: a list of examples to stack would hold everything twice.
    values = {name: np.zeros((len(indices), *m.shape), m.dtype) for name, m in modalities.items()}
    present = {name: np.zeros(len(indices), bool) for name in modalities}
    for row, i in enumerate(indices):
        try:
            one, there = encode(source[int(i)], modalities)
        except ValueError as error:
            raise ValueError(f"example {i}, {error}") from None
        for name in modalities:
            values[name][row], present[name][row] = one[name], there[name]
    return values, present


def order(n: int, seed: int, start: int, stop: int) -> np.ndarray:
    """The examples at positions start..stop of the endless line of shuffled epochs, int [stop - start]."""
    if n < 1:
        raise ValueError("The data set has no examples.")
    epochs = range(start // n, -(-stop // n))
    line = np.concatenate([np.zeros(0, int), *(permutation(n, seed, epoch) for epoch in epochs)])
    return line[start - epochs.start * n :][: stop - start]


@functools.lru_cache(maxsize=4)  # an epoch has many batches
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the n examples in one epoch, read-only.

    Philox counts instead of carrying a state: any epoch is drawn without those before it, and no two keys overlap.
    """
    drawn = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)
    drawn.flags.writeable = False
    return drawn


def batches(data: Batch, batch_size: int, *, seed: int, steps: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
    """`(step, batch)` for the steps from `start` up to `steps`, of a split in memory (what `load` returns)."""
    for step in range(start, steps):
        yield step, data.take(order(len(data), seed, step * batch_size, (step + 1) * batch_size))


def stream(
    source: Source,
    modalities: Mapping[str, Modality],
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    workers: int = 0,
    rows: slice = slice(None),
) -> Iterator[Batch]:
    """The batches at the steps from `start` up to `stop`, read while the model trains; the same as those of `batches`.

    workers: 0 reads in a thread, n in n processes.
    rows: the part of each batch that this process needs.

    Raises:
        ValueError: there are no examples, or one does not fit; the sentence names its index and the modality.
    """
    import grain

    n = _size(source)

    def read(step: int) -> tuple[Arrays, Arrays]:
        return gather(source, modalities, order(n, seed, step * batch_size, (step + 1) * batch_size)[rows])

    # A batch, not an example, is what a worker is given: one hand-over a step. More threads than one only contend.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    steps = grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options)
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain reads one, and only programs run by absl.app have parsed theirs
            flags.FLAGS.mark_as_parsed()
        steps = steps.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return _closing(iter(steps), copy=workers > 0)


def _closing(iterator: Any, copy: bool) -> Iterator[Batch]:
    """Batches of the pairs of a Grain iterator, which is closed at the end so that its processes end too."""
    try:
        for values, present in iterator:
            if copy:  # out of the shared memory of the workers, which they take back
                values, present = ({name: np.array(x) for name, x in part.items()} for part in (values, present))
            yield Batch(values, present)
    finally:
        iterator.close()


def _fitting(name: str, modality: Modality, raw: Any) -> np.ndarray:
    """What `modality` makes of a raw value, checked against what it promises."""
    try:
        value = modality.encode(raw)
    except ValueError as error:
        raise ValueError(f'"{name}": {error}') from None
    if value.shape != modality.shape or value.dtype != modality.dtype:
        promised, found = (f"{x.dtype}{list(x.shape)}" for x in (modality, value))
        raise ValueError(f'"{name}": its modality promises {promised}, but encoded this as {found}.')
    return value


def _size(source: Source) -> int:
    if len(source) < 1:
        raise ValueError("The data set has no examples.")
    return len(source)
