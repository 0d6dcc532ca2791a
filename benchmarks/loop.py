"""What the training loop costs: seconds a step of `fit` against the same compiled program called in a bare loop.

    python benchmarks/loop.py --steps 400 --rounds 5

Both run in one process, in turn, on the same model, data, batch size and number of steps a call; the first half of each
run is left out. Prints JSON: medians, spread and the ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import mmgen_jax as mm
from mmgen_jax.data.loader import load, order
from mmgen_jax.train.step import make_steps

CALL = 10  # steps in one compiled call


def experiment(steps: int) -> mm.Experiment:
    """A small convolutional VAE on random pictures: a step of some ten milliseconds on two CPU cores."""
    pictures = np.random.default_rng(0).integers(0, 256, (512, 28, 28, 1), dtype=np.uint8)
    model = mm.VAE(modalities={"image": mm.Image(28, 28, 1, fold=2)}, latent=16, objective=mm.vae.MoPoE())
    data = mm.data.Arrays({"image": pictures})
    return mm.Experiment(model=model, data=data, steps=steps, batch_size=64, steps_per_call=CALL, save_every=10 * steps)


def of_fit(e: mm.Experiment) -> float:
    """Seconds a step of `fit`, by its own log."""
    with tempfile.TemporaryDirectory() as folder:
        mm.fit(e, Path(folder) / "run")
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    half = next(row for row in rows if row["step"] >= e.steps // 2)
    return (rows[-1]["seconds"] - half["seconds"]) / (rows[-1]["step"] - half["step"])


def of_bare(e: mm.Experiment) -> float:
    """Seconds a step of the compiled program alone."""
    tx = e.optimizer.make(e.steps)
    state = jax.jit(lambda key: mm.TrainState.create(e.model, tx, key))(jax.random.key(0))
    resident = jax.device_put(load(e.data.source("train"), e.model.modalities))
    rows = order(512, e.seed, 0, e.steps * e.batch_size).reshape(-1, CALL, e.batch_size)
    program = jax.jit(make_steps(e.model, tx, seed=e.seed), donate_argnums=0)
    for i, indices in enumerate(rows):
        if i == len(rows) // 2:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = program(state, resident, indices, np.int32(CALL))
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / (e.steps - len(rows) // 2 * CALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    e = experiment(options.steps)
    pairs = [(of_fit(e), of_bare(e)) for _ in range(options.rounds)]
    fits, bares = zip(*pairs, strict=True)
    result = {
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "fit_ms": [round(1e3 * s, 3) for s in fits],
        "bare_ms": [round(1e3 * s, 3) for s in bares],
        "ratio_of_medians": round(statistics.median(fits) / statistics.median(bares), 4),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
