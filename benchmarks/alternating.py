"""Two or more programs measured in turn, block by block, so that a machine whose speed drifts is the same for all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mmgen_jax as mm
from mmgen_jax.data.loader import order
from mmgen_jax.materialized import compiler_options
from mmgen_jax.train.step import make_steps
from mmgen_jax.types import Batch, Params, TrainState

CALL = 10  # of our steps in one compiled call
Run = Callable[[int], Mapping[str, float]]  # takes so many steps and says the seconds of the clock and of processors


class Ours:
    """The compiled program of the training loop, with its state."""

    def __init__(self, model: mm.VAE, params: Params, data: Batch, rate: float, batch_size: int, seed: int = 0) -> None:
        tx = mm.Optimizer(learning_rate=rate).make(1)
        state = jax.jit(lambda key: TrainState.create(model, tx, key))(jax.random.key(seed))
        self.state = state.replace(params=jax.tree.map(jnp.array, params))
        self.data, self.batch_size, self.done = jax.device_put(data), batch_size, 0
        self.program = jax.jit(make_steps(model, tx, seed=seed), donate_argnums=0, compiler_options=compiler_options())

    def run(self, steps: int, seed: int = 0) -> dict[str, float]:
        """Seconds for that many further steps, of the clock and of all processors; the first call compiles."""
        rows = order(len(self.data), seed, self.done * self.batch_size, (self.done + steps) * self.batch_size)
        self.done += steps
        rows = rows.astype(np.int32).reshape(steps, self.batch_size)
        jax.block_until_ready(self.state)
        start, used = time.perf_counter(), time.process_time()
        for i in range(0, steps, CALL):
            part = rows[i : i + CALL]
            full = np.concatenate([part, np.zeros((CALL - len(part), self.batch_size), np.int32)])
            self.state, metrics = self.program(self.state, self.data, full, np.int32(len(part)))
        jax.block_until_ready((self.state, metrics))
        taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
        if int(self.state.step) != self.done:  # it ends at numbers that are not finite, and would look fast
            raise RuntimeError(f"our step {int(self.state.step)} of {self.done} was the last with finite numbers")
        return taken


def alternating(sides: Mapping[str, Run], seconds: float, rounds: int) -> dict[str, Any]:
    """Milliseconds a step of every side, in `rounds` blocks of about so many seconds, which take turns.

    All have compiled before. Of each: the blocks, their median, and processor time.
    """
    steps = {side: block_of(run, seconds) for side, run in sides.items()}
    blocks = [{side: run(steps[side]) for side, run in sides.items()} for _ in range(rounds)]
    row: dict[str, Any] = {"steps_in_a_block": steps}
    for side, n in steps.items():
        row[f"{side}_ms"] = [round(1e3 * block[side]["seconds"] / n, 2) for block in blocks]
        row[f"{side}_cpu_ms"] = round(1e3 * statistics.median(block[side]["cpu"] for block in blocks) / n, 2)
        row[f"{side}_median_ms"] = round(statistics.median(row[f"{side}_ms"]), 3)
    return row


def block_of(run: Run, seconds: float) -> int:
    """How many steps take about so long; whole calls where it is more than one."""
    steps = max(1, min(200, round(seconds / min(run(1)["seconds"] for _ in range(2)))))
    return steps if steps <= CALL else -(-steps // CALL) * CALL


def compared(row: Mapping[str, Any], theirs: str, ours: str = "ours") -> dict[str, Any]:
    """How many times as fast `ours` is as `theirs`: of the medians, and from pair to pair of blocks."""
    ratios = sorted(a / b for a, b in zip(row[f"{theirs}_ms"], row[f"{ours}_ms"], strict=True))
    return {
        "times_faster": round(row[f"{theirs}_median_ms"] / row[f"{ours}_median_ms"], 3),
        "times_faster_by_pair": [round(ratios[0], 3), round(ratios[-1], 3)],
        "times_less_cpu": round(row[f"{theirs}_cpu_ms"] / row[f"{ours}_cpu_ms"], 3),
    }
