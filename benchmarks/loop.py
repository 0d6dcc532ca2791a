"""What the training loop costs: milliseconds a step of `fit` against the same compiled program in a bare loop.

    python -m benchmarks loop --steps 400 --rounds 5

Both run in one process, in turn, on the same model, data, batch size and number of steps a call; the first half of each
run is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from bare import EXAMPLES, Bare, made_up
from record import parse, parser, spread, write

import mmgen_jax as mm
from mmgen_jax.train.log import read_rows

CALL = 10  # steps in one compiled call


def experiment(steps: int) -> mm.Experiment:
    """A small convolutional VAE on random pictures: a step of some ten milliseconds on two CPU cores."""
    model = mm.VAE(modalities={"image": mm.Image(28, 28, 1, fold=2)}, latent=16, objective=mm.vae.MoPoE())
    data = mm.data.Arrays(made_up(model.modalities).values)
    return mm.Experiment(
        model=model,
        data=data,
        steps=steps,
        batch_size=64,
        steps_per_call=CALL,
        save_every=10 * steps,
        mesh=mm.Mesh(data=1),
    )


def of_fit(e: mm.Experiment) -> float:
    """Seconds a step of `fit`, by its own log."""
    with tempfile.TemporaryDirectory() as folder:
        mm.fit(e, Path(folder) / "run")
        rows = read_rows(Path(folder) / "run" / "metrics.jsonl")
    half = next(row for row in rows if row["step"] >= e.steps // 2)
    return (rows[-1]["seconds"] - half["seconds"]) / (rows[-1]["step"] - half["step"])


def of_bare(e: mm.Experiment) -> float:
    """Seconds a step of the compiled program alone."""
    bare = Bare(e)
    state, resident = bare.state(), bare.resident()
    program, calls = bare.program(state), [bare.rows(step) for step in range(0, e.steps, CALL)]
    for i, rows in enumerate(calls):
        if i == len(calls) // 2:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = program(state, resident, rows, np.int32(CALL))
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / (CALL * (len(calls) - len(calls) // 2))


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("loop", __doc__)
    flags.add_argument("--steps", type=int, default=400, help=f"of one training, a multiple of {CALL}")
    flags.add_argument("--rounds", type=int, default=5, help="trainings of each kind")
    options = parse(flags, args, steps=100, rounds=1)
    e = experiment(options.steps)
    fits, bares = zip(*((of_fit(e), of_bare(e)) for _ in range(options.rounds)), strict=True)
    row = {"fit_ms": spread(fits, 1e3), "bare_ms": spread(bares, 1e3)}
    row["ratio"] = spread(fit / bare for fit, bare in zip(fits, bares, strict=True))
    row["ratio_of_medians"] = row["fit_ms"]["median"] / row["bare_ms"]["median"]
    write("loop", options, {f"convolutional VAE, batch {e.batch_size}, {EXAMPLES} pictures": row})


if __name__ == "__main__":
    main()
