"""One of the processes of `scaling.py`: PROCESSES INDEX PORT FOLDER, and one JSON of settings on its standard input.

Process 0 prints a JSON of rows, and writes the parameters of each after training to FOLDER/NAME.npz.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dense
import jax
import numpy as np
from bare import Bare, memory, run
from collectives import collectives, sent
from record import spread, timed

import mmgen_jax as mm
from mmgen_jax.train.distributed import join, to_host

SGD = mm.Optimizer(name="sgd", learning_rate=0.01, b1=0.0)  # Adam would make much of differences in the last bit


def forms(devices: int) -> dict[str, dict[str, Any]]:
    """The ways in which the step is spread over devices, as fields of the experiment."""
    data = {"mesh": mm.Mesh(data=devices)}
    fsdp = {"mesh": mm.Mesh(data=1, fsdp=devices)}
    return {"jit": data, "shard_map": data | {"per_device": True}, "fsdp": fsdp}


def measured(e: mm.Experiment, rounds: int) -> tuple[dict[str, Any], Any]:
    """What is measured of one form, and the parameters that it ends with."""
    bare, devices = Bare(e), jax.device_count()
    state, resident, rows = bare.state(), bare.resident(), bare.rows()
    program = bare.program(state).lower(state, resident, rows, np.int32(1)).compile()
    found = list(collectives(program.as_text()))
    counts = Counter(kind for kind, _ in found)
    least = 2 * (devices - 1) / devices * sum(x.nbytes for x in jax.tree.leaves(state.params))
    bytes_sent = sum(sent(kind, size, devices) for kind, size in found)
    row: dict[str, Any] = {
        "collectives": ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        "sent_mb": bytes_sent / 1e6,
        "least_mb": least / 1e6,
        "sent_over_least": bytes_sent / least if least else None,
        "mib_state": sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state)) / 2**20,
        **memory(program),
    }
    state, _ = run(program, state, resident, rows, e.steps_per_call)
    params, steps = to_host(state.params), []
    for _ in range(rounds):
        seconds, (state, _) = timed(run, program, state, resident, rows, e.steps_per_call)
        steps.append(seconds / e.steps_per_call)
    return row | {"step_ms": spread(steps, 1e3)}, params


def main() -> None:
    processes, index, port, folder = (*map(int, sys.argv[1:4]), Path(sys.argv[4]))
    settings = json.load(sys.stdin)
    if processes > 1:
        join(f"127.0.0.1:{port}", processes, index)
    rows = {}
    for name, fields in forms(jax.device_count()).items():
        e = dense.training(settings["width"], settings["batch"], optimizer=SGD, **fields)
        rows[name], params = measured(e, settings["rounds"])
        if index == 0:
            np.savez(folder / f"{name}.npz", **params)
    if index == 0:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
