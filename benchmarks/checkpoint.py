"""What checkpoints cost: how long a save holds up training, bandwidths, and the share of training time.

    python -m benchmarks checkpoint --millions 10 100 1000

The state has so many parameters, their two moments of Adam and no average: 12 bytes a parameter. What this machine has
no memory for is compiled but not made: of it there are sizes and what a step needs, and no times. `blocking` is the
time until `save` returns, which includes the checksums; the first, for which Orbax is loaded, is apart. `save` is the
time until all is on the disk. `restore` reads, out of the system's memory where that suffices, and checks layout and
checksums. The share is that of

    (steps with a save on the way until it is done) - (as many steps without)

in the time of --every steps of a batch of --batch examples.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dense
import jax
import numpy as np
from bare import Bare, memory, run
from record import parse, parser, spread, timed, write

import mmgen_jax as mm
from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.types import Batch, TrainState

ADAM = mm.Optimizer(learning_rate=1e-4)
COPIES = 3.5  # of the state, at most, in memory: a step's, that being written, and that being read


def saved(checkpoints: Checkpoints, step: int, state: TrainState) -> tuple[float, float]:
    """Seconds until `save` returns, and until all is on the disk."""
    start = time.perf_counter()
    checkpoints.save(step, state)
    blocking = time.perf_counter() - start
    checkpoints.wait()
    return blocking, time.perf_counter() - start


def free_bytes() -> float:
    """Of memory; infinite where the system does not say."""
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else math.inf
    return pages * os.sysconf("SC_PAGE_SIZE")


def measured(millions: float, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of one size, or what can be said of it without making it."""
    width = round((1e6 * millions / dense.DEPTH) ** 0.5)
    bare = Bare(dense.training(width, options.batch, optimizer=ADAM, mesh=mm.Mesh(data=1)))
    shapes, resident, rows = bare.state_shapes(), bare.resident(), bare.rows()
    program = bare.program(shapes).lower(shapes, resident, rows, np.int32(1)).compile()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    known = {"parameters": sum(x.size for x in jax.tree.leaves(shapes.params)), "state_mb": size / 1e6}
    if COPIES * size > free_bytes():
        return known | {"timed": False} | memory(program)
    return known | {"timed": True} | times(bare.state(), shapes, program, resident, rows, options, folder)


def times(
    state: TrainState,
    shapes: TrainState,
    program: Any,
    resident: Batch,
    rows: jax.Array,
    options: argparse.Namespace,
    folder: Path,
) -> dict[str, Any]:
    """What is measured of one size."""
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    with Checkpoints(folder, keep=1) as checkpoints:
        first, *saves = (saved(checkpoints, i, state) for i in range(options.rounds + 1))
        blocking, whole = zip(*saves, strict=True)
        restores = [timed(checkpoints.restore, shapes)[0] for _ in range(options.rounds)]
        one, (state, _) = timed(run, program, state, resident, rows, 1)
        steps = 1 + round(1.5 * max(whole) / one)  # the save is done before they are
        extras, laps = [], []
        for i in range(options.rounds):
            alone, (state, _) = timed(run, program, state, resident, rows, steps)
            start = time.perf_counter()
            checkpoints.save(options.rounds + 1 + i, state)
            state, _ = run(program, state, resident, rows, steps)
            checkpoints.wait()
            extras.append(time.perf_counter() - start - alone)
            laps.append(alone / steps)
    step = spread(laps)["median"]
    return {
        "first_blocking_s": first[0],
        "blocking_s": spread(blocking),
        "save_s": spread(whole),
        "save_mb_per_s": spread(size / 1e6 / seconds for seconds in whole),
        "restore_s": spread(restores),
        "restore_mb_per_s": spread(size / 1e6 / seconds for seconds in restores),
        "step_ms": 1e3 * step,
        "extra_s": spread(extras),
        "share_of_training": spread(extra / (extra + options.every * step) for extra in extras),
    }


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("checkpoint", __doc__)
    flags.add_argument("--millions", nargs="+", type=float, default=[10, 100, 1000], help="of parameters")
    flags.add_argument("--batch", type=int, default=128, help="examples in a step")
    flags.add_argument("--every", type=int, default=500, help="steps between two saves")
    flags.add_argument("--rounds", type=int, default=3)
    options = parse(flags, args, millions=[0.01], batch=8, rounds=2)
    rows = {}
    for millions in options.millions:
        with tempfile.TemporaryDirectory() as folder:
            rows[f"{millions:g} M"] = measured(millions, options, Path(folder))
    write("checkpoint", options, rows)


if __name__ == "__main__":
    main()
