"""How many examples a second each way of feeding gives, and the share of its time that training waits for them.

    python -m benchmarks data --names article_vae digits_vae --workers 0 1 2

Of the training set of an experiment, in its batches, encoded for its modalities:

    on the device    rows of a split that is there, taken by a compiled program
    in memory        rows of a split in memory
    kept             a whole split that an earlier start has decoded, read and checked
    decoded          read from the data set (tensorflow-datasets) and encoded, example by example
    streamed, n      the same by Grain while others compute: in a thread, or in n processes

`training` is its compiled program fed as `fit` feeds it: the time until the next inputs are there is waiting, the time
until the call has ended is not. The calls made while the feed starts are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from typing import Any

import jax
import numpy as np
from bare import Bare
from record import FOLDER, parse, parser, spread, timed, write

import mmgen_jax as mm
from mmgen_jax.data import kept
from mmgen_jax.data.loader import batches, gather, load, order, stream
from mmgen_jax.train.feed import feeds, prefetch
from mmgen_jax.train.loop import compile_calls, keep_compiled_programs
from mmgen_jax.types import Batch, Source

ENDLESS = 10**9
LEFT_OUT = 3  # calls: two are fed ahead, and one starts


def experiment(name: str) -> mm.Experiment:
    """What `name` stands for, on one device."""
    if name == "tiny":
        model = mm.VAE(modalities={"label": mm.Label(10)}, latent=2)
        data = mm.data.Arrays({"label": [i % 10 for i in range(64)]})
        return mm.Experiment(model=model, data=data, steps=ENDLESS, batch_size=8, mesh=mm.Mesh(data=1))
    found = mm.load_experiment(FOLDER.parent / "experiments" / f"{name}.py")
    return dataclasses.replace(found, steps=ENDLESS, mesh=mm.Mesh(data=1))


def ways(e: mm.Experiment, source: Source, split: Batch, workers: Sequence[int]) -> dict[str, Iterator[Any]]:
    """Endless batches, by what they come out of."""
    size, seed, modalities = e.batch_size, e.seed, e.model.modalities
    resident, take = jax.device_put(split), jax.jit(Batch.take)
    rows = (order(len(source), seed, i * size, (i + 1) * size).astype(np.int32) for i in count())
    positions = (order(len(source), seed, i * size, (i + 1) * size) for i in count())
    found: dict[str, Iterator[Any]] = {
        "on the device": (jax.block_until_ready(take(resident, i)) for i in rows),
        "in memory": (batch for _, batch in batches(split, size, seed=seed, steps=ENDLESS)),
        "decoded": (gather(source, modalities, i) for i in positions),
    }
    for n in workers:
        found[f"streamed, {n}"] = stream(source, modalities, size, seed, 0, ENDLESS, n)
    return found


def speed(items: Iterator[Any], size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Examples a second in blocks of some seconds; the first batches, for which much is started, are left out."""
    rates = []
    for _ in islice(items, LEFT_OUT):
        pass
    for _ in range(options.rounds):
        start, made = time.perf_counter(), 0
        while made == 0 or time.perf_counter() - start < options.seconds:
            next(items)
            made += size
        rates.append(made / (time.perf_counter() - start))
    return {"examples_per_s": spread(rates)}


def training(e: mm.Experiment, source: Source, split: Batch, options: argparse.Namespace) -> dict[str, Any]:
    """The share of waiting, and what of a step is not."""
    bare = Bare(e)
    state = bare.state()
    resident = bare.resident(state, split) if e.workers is None else None
    program = compile_calls(e, bare.tx, state, resident, bare.stacked)
    laps: list[tuple[int, float, float]] = []  # the steps of a call, seconds of waiting and of working
    with closing(prefetch(feeds(e, source, 0, bare.stacked))) as feed:
        while len(laps) < LEFT_OUT + options.rounds or sum(w + t for _, w, t in laps[LEFT_OUT:]) < options.seconds:
            waited, (_, steps, inputs) = timed(next, feed)
            worked, (state, _) = timed(program, state, resident, inputs, steps)
            laps.append((int(steps), waited, worked))
    steps, waits, works = zip(*laps[LEFT_OUT:], strict=True)
    row = {"share_waiting": sum(waits) / (sum(waits) + sum(works))}
    row["step_ms"] = spread((work / n for n, work in zip(steps, works, strict=True)), 1e3)
    row["wait_ms"] = spread((wait / n for n, wait in zip(steps, waits, strict=True)), 1e3)
    return row | {"examples_per_s": e.batch_size * sum(steps) / (sum(waits) + sum(works))}


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("data", __doc__)
    flags.add_argument("--names", nargs="+", default=["article_vae", "digits_vae"], help="files of experiments/")
    flags.add_argument("--workers", nargs="*", type=int, default=[0, 1, 2], help="of Grain; 0 is a thread")
    flags.add_argument("--rounds", type=int, default=3, help="blocks of batches, or calls at least")
    flags.add_argument("--seconds", type=float, default=1.0, help="that a block lasts")
    options = parse(flags, args, names=["tiny"], workers=[0], rounds=2, seconds=0.01)
    keep_compiled_programs()
    rows = {}
    for name in options.names:
        e = experiment(name)
        source = e.data.source("train")
        split = load(source, e.model.modalities)
        for way, items in ways(e, source, split, options.workers).items():
            with closing(items):
                rows[f"{name}: {way}"] = speed(items, e.batch_size, options)
        if kept.folder(source, e.model.modalities, len(source)):
            seconds = [timed(load, source, e.model.modalities)[0] for _ in range(options.rounds)]
            rows[f"{name}: kept"] = {"examples_per_s": spread(len(source) / s for s in seconds)}
        for n in (None, *options.workers):
            way = "on the device" if n is None else f"streamed, {n}"
            rows[f"{name}: training, {way}"] = training(dataclasses.replace(e, workers=n), source, split, options)
    write("data", options, rows)


if __name__ == "__main__":
    main()
