"""What the compiled program is fed: indices or batches for up to k steps a call, made ahead in a thread.

Both follow from seed and step alone. A call never runs past a step after which there is something to do (a row of the
log, a checkpoint, an evaluation); it then makes fewer steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding

from mmgen_jax.config import Experiment
from mmgen_jax.data.loader import order, stream
from mmgen_jax.train.mesh import local_rows, put
from mmgen_jax.types import Array, Batch, Source

T = TypeVar("T")


def is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after `step` steps."""
    return every > 0 and step % every == 0


def calls(start: int, experiment: Experiment) -> Iterator[tuple[int, int]]:
    """(first step, step after the last) of each compiled call: up to `steps_per_call`, and none past a due step."""
    periods = [n for n in (experiment.log_every, experiment.save_every, experiment.eval_every) if n]
    while start < experiment.steps:
        stop = min(start + experiment.steps_per_call, experiment.steps, *(start - start % n + n for n in periods))
        yield start, stop
        start = stop


def feeds(
    experiment: Experiment, source: Source, start: int, stacked: NamedSharding
) -> Generator[tuple[int, np.int32, Array | Batch], None, None]:
    """(step after the call, its number of steps, its inputs `[k, B, ...]` on the devices) from step `start` on."""
    size, seed, k = experiment.batch_size, experiment.seed, experiment.steps_per_call
    rows = local_rows(stacked, size)
    if experiment.workers is not None:
        modalities = experiment.model.modalities
        batches = stream(source, modalities, size, seed, start, experiment.steps, experiment.workers, rows)
    for first, stop in calls(start, experiment):
        if experiment.workers is None:
            positions = order(len(source), seed, first * size, stop * size).astype(np.int32)
            steps = iter(positions.reshape(stop - first, size)[:, rows])
        else:
            steps = islice(batches, stop - first)
        yield stop, np.int32(stop - first), put(stack(steps, k), stacked, size)


def stack(trees: Iterator[Any], k: int) -> Any:
    """Up to k trees of numpy arrays as one, `[k, ...]`, the rest zeros.

    They are copied one by one into new memory, since a loader may use its buffers again and, on CPU, a device array
    may be a view of the numpy array it was made from.
    """
    first = next(trees)
    whole = jax.tree.map(lambda x: np.zeros((k, *x.shape), x.dtype), first)
    for i, tree in enumerate(chain([first], trees)):
        for to, x in zip(jax.tree.leaves(whole), jax.tree.leaves(tree), strict=True):
            to[i] = x
    return whole


def prefetch(items: Generator[T, None, None], ahead: int = 2) -> Generator[T, None, None]:
    """The same items, made in a thread up to `ahead` of their use: a compiled loop blocks its caller on CPU."""
    end = object()
    with closing(items), ThreadPoolExecutor(1) as pool:  # one thread, so the order is kept
        made = deque(pool.submit(next, items, end) for _ in range(ahead))
        while (item := made.popleft().result()) is not end:
            made.append(pool.submit(next, items, end))
            yield item
