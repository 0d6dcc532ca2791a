"""One of the processes of `scaling.py`: PROCESSES INDEX PORT FOLDER, and one JSON of settings on its standard input.

Process 0 prints a JSON of rows, and writes the parameters of each after training to FOLDER/NAME.npz.
"""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dense
import jax
import numpy as np
import optax
from bare import Bare, memory, run
from collectives import collectives, sent
from record import spread, timed

import mmgen_jax as mm
from mmgen_jax.train.distributed import join, to_host
from mmgen_jax.types import Array, Batch, Params, TrainState

SGD = mm.Optimizer(name="sgd", learning_rate=0.01, b1=0.0)  # Adam would make much of differences in the last bit


def forms(devices: int) -> dict[str, dict[str, Any]]:
    """The ways in which the step is spread over devices, as fields of the experiment."""
    data = {"mesh": mm.Mesh(data=devices)}
    fsdp = {"mesh": mm.Mesh(data=1, fsdp=devices)}
    return {"jit": data, "shard_map": data | {"per_device": True}, "fsdp": fsdp}


def measured(e: mm.Experiment, rounds: int, copies: int = 1) -> tuple[dict[str, Any], Any]:
    """What is measured of one form, and the parameters that it ends with. copies: of every example in a batch."""
    bare = Bare(e)
    state, resident, rows = bare.state(), bare.resident(), bare.rows(copies=copies)
    program = bare.program(state).lower(state, resident, rows, np.int32(1)).compile()
    row = communication(program, state.params)
    row |= {"mib_state": sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state)) / 2**20}
    state, _ = run(program, state, resident, rows, e.steps_per_call)
    params, steps = to_host(state.params), []
    for _ in range(rounds):
        seconds, (state, _) = timed(run, program, state, resident, rows, e.steps_per_call)
        steps.append(seconds / e.steps_per_call)
    return row | memory(program) | {"step_ms": spread(steps, 1e3)}, params


def mapped(e: mm.Experiment, rounds: int) -> tuple[dict[str, Any], Any]:
    """The same by `jax.pmap`, as it was written before there were sharded arrays: a copy of all for every device."""
    bare, devices, axis = Bare(e), jax.device_count(), "devices"

    def copied(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.broadcast_to(x, (devices, *x.shape)), jax.device_get(tree))

    def one(state: TrainState, batch: Batch) -> tuple[TrainState, None]:
        def loss(params: Params) -> Array:
            return e.model.loss(params, {}, batch, jax.random.key(0))[0].mean()

        grads = jax.lax.pmean(jax.grad(loss)(state.params), axis)
        updates, opt = bare.tx.update(grads, state.opt, state.params)
        return state.replace(step=state.step + 1, params=optax.apply_updates(state.params, updates), opt=opt), None

    @functools.partial(jax.pmap, axis_name=axis, donate_argnums=0)
    def step(state: TrainState, resident: Batch, rows: Array) -> TrainState:
        return jax.lax.scan(lambda state, row: one(state, resident.take(row)), state, rows)[0]

    rows = np.moveaxis(np.asarray(bare.rows()).reshape(e.steps_per_call, devices, -1), 1, 0)
    state, resident = copied(bare.state()), copied(bare.resident())
    row = communication(step.lower(state, resident, rows).compile(), bare.state().params)
    state = step(state, resident, rows)
    params, steps = jax.tree.map(lambda x: np.asarray(x[0]), state.params), []
    for _ in range(rounds):
        seconds, state = timed(step, state, resident, rows)
        steps.append(seconds / e.steps_per_call)
    return row | {"step_ms": spread(steps, 1e3)}, params


def communication(program: Any, params: Params) -> dict[str, Any]:
    """What the devices send one another in a step, and the least that is needed."""
    devices, found = jax.device_count(), list(collectives(program.as_text()))
    counts = Counter(kind for kind, _ in found)
    least = 2 * (devices - 1) / devices * sum(x.nbytes for x in jax.tree.leaves(params))
    bytes_sent = sum(sent(kind, size, devices) for kind, size in found)
    return {
        "collectives": ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        "sent_mb": bytes_sent / 1e6,
        "least_mb": least / 1e6,
        "sent_over_least": bytes_sent / least if least else None,
    }


def main() -> None:
    processes, index, port, folder = (*map(int, sys.argv[1:4]), Path(sys.argv[4]))
    settings = json.load(sys.stdin)
    if processes > 1:
        join(f"127.0.0.1:{port}", processes, index)
    devices, rounds = jax.device_count(), settings["rounds"]
    training = functools.partial(dense.training, settings["width"], optimizer=SGD)
    ways = forms(devices)
    runs = {
        name: functools.partial(measured, training(settings["batch"], **fields), rounds)
        for name, fields in ways.items()
    }
    if processes == 1:
        runs["pmap"] = functools.partial(mapped, training(settings["batch"], **ways["jit"]), rounds)
    runs["weak"] = functools.partial(measured, training(devices * settings["batch"], **ways["jit"]), rounds, devices)
    rows = {}
    for name, measure in runs.items():
        rows[name], params = measure()
        if index == 0:
            np.savez(folder / f"{name}.npz", **params)
    if index == 0:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
