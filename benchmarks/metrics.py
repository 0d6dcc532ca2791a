"""How long metrics of many features take, and how much memory: 50,000 x 2,048 of them, as published numbers rest on.

    python -m benchmarks metrics --neighbours 50000          all pairs of all of them: 25 times as long

Two sets of normal numbers in float32, which are there already (`mib_features`): `mib_more` is what the process has at
most beyond them, looked at a hundred times a second (Linux only; elsewhere 0). `frechet` is the Frechet distance, means
and covariances included; `kernel, subsets` is the kernel distance as KID takes it, of 100 pairs of 1,000; the last
three work out all pairs of --neighbours examples. `gflop_per_s` counts the products of matrices of the features alone.
"""

from __future__ import annotations

import argparse
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import parse, parser, spread, timed, write

from mmgen_jax.evals import metrics

OFTEN = 0.01  # seconds between two looks at the memory
MIB = 2**20


def resident() -> float:
    """MiB of memory that the process has now."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB if pages.exists() else 0.0


def watched(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that the function takes, and how many MiB the process has at most beyond those that it has before."""
    before, seen, done = resident(), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(OFTEN):
            seen.append(resident() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        seconds, _ = timed(function)
    finally:
        done.set()
        thread.join()
    return seconds, max(seen)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, int, float, Callable[..., Any]]]:
    """(name, how many examples it takes, floating-point operations of its products, the metric of two sets)."""
    n, d, few, size = options.examples, options.features, options.neighbours, options.subset
    subsets = metrics.draw_subsets(n, n, options.subsets, size, seed=0)
    pairs = 2 * few**2 * d  # of one matrix of all pairs
    yield "frechet", n, 2 * n * d**2, metrics.frechet_distance
    kid = functools.partial(metrics.kernel_distance, subsets=subsets)
    yield "kernel, subsets", n, 3 * 2 * size**2 * d * options.subsets, kid
    yield "kernel, all", few, 3 * pairs, metrics.kernel_distance
    yield "neighbours, precision and recall", few, 3 * pairs, metrics.precision_recall
    yield "neighbours, density and coverage", few, 2 * pairs, metrics.density_coverage


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("metrics", __doc__)
    flags.add_argument("--examples", type=int, default=50_000, help="in each of the two sets")
    flags.add_argument("--features", type=int, default=2048)
    flags.add_argument("--neighbours", type=int, default=10_000, help="examples of which all pairs are worked out")
    flags.add_argument("--subsets", type=int, default=100)
    flags.add_argument("--subset", type=int, default=1000, help="examples in each of them")
    flags.add_argument("--rounds", type=int, default=1)
    options = parse(flags, args, examples=300, features=16, neighbours=100, subsets=3, subset=20)
    rng = np.random.default_rng(0)
    both = [rng.standard_normal((options.examples, options.features), np.float32) for _ in "xy"]
    rows = {}
    for name, n, operations, metric in cases(options):
        measured = [watched(lambda m=metric, n=n: m(*(x[:n] for x in both))) for _ in range(options.rounds)]
        seconds, more = zip(*measured, strict=True)
        rows[name] = {
            "examples": n,
            "features": options.features,
            "seconds": spread(seconds),
            "gflop_per_s": operations / 1e9 / spread(seconds)["median"],
            "mib_features": sum(x[:n].nbytes for x in both) / MIB,
            "mib_more": max(more),
        }
    write("metrics", options, rows)


if __name__ == "__main__":
    main()
