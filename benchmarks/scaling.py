"""One training step on several devices and processes: equal results, what is sent, memory of each device.

    python -m benchmarks scaling --devices 1 2 4 8 --processes 2 4

Devices are emulated by the threads of this machine's processors, processes talk over its loopback: that shows what is
computed, sent and held, while times only tell the overhead. The model is `dense.py`'s, the batch the same for all:

    jit          data parallel, `jax.jit` over arrays with a NamedSharding: the compiler adds what is to be sent
    shard_map    data parallel, every device its own program with a mean in it (`mmgen train --per-device true`)
    fsdp         parameters are split over the devices as well (`--mesh.data 1 --mesh.fsdp N`)
    pmap         data parallel by `jax.pmap`, within one process: the older way, written here
    weak         jit with the whole batch for every device instead of its share: what is computed grows with them

After a few steps of SGD all must have the parameters of one device: `difference` is the largest, relative to the
largest parameter. Bytes are those that each device sends in a step; the least for data parallelism is a ring's,
2 (n - 1) / n times the bytes of the parameters, in which fsdp can gather them once and scatter their gradient as well.
`mib_state` is the part of the state that a device holds; its arguments are that and the training set.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from record import FOLDER, parse, parser, write

TOLERANCE = 1e-5
WORKER = FOLDER / "scaling_worker.py"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def workers(processes: int, devices: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The rows of so many processes that have `devices` devices together; parameters are in `folder` then.

    Raises RuntimeError, with what they said, if any fails.
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices // processes)}
    environment["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), environment.get("PYTHONPATH", "")])
    settings, port = json.dumps(vars(options), default=str), free_port()
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    started = [
        subprocess.Popen(
            [sys.executable, WORKER, *map(str, (processes, i, port, folder))], env=environment, text=True, **pipes
        )
        for i in range(processes)
    ]
    for process in started:
        process.stdin.write(settings)
        process.stdin.close()
        process.stdin = None
    said = [process.communicate() for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("a process failed:\n" + "\n".join(err for _, err in said))
    return json.loads(said[0][0].splitlines()[-1])  # after what the network layer has to say


def difference(folder: Path, name: str, first: dict[str, np.ndarray]) -> float:
    """The largest of the parameters from `first`; RuntimeError if they are not equal up to `TOLERANCE`."""
    with np.load(folder / f"{name}.npz") as file:
        most = max(float(np.abs(file[key] - x).max()) for key, x in first.items())
    relative = most / max(float(np.abs(x).max()) for x in first.values())
    if not relative <= TOLERANCE:
        raise RuntimeError(f"{name} ends {relative:.2g} from what one device computes, more than {TOLERANCE}")
    return relative


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("scaling", __doc__)
    flags.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4, 8], help="of one process")
    flags.add_argument("--processes", nargs="*", type=int, default=[2, 4], help="with one device each")
    flags.add_argument("--width", type=int, default=512, help="of ten square matrices")
    flags.add_argument("--batch", type=int, default=64, help="examples in a step, on all devices together")
    flags.add_argument("--rounds", type=int, default=5)
    options = parse(flags, args, devices=[2], processes=[], width=64, batch=8, rounds=1)
    jax.config.update("jax_platforms", "cpu")  # as the processes do, so that the record says so
    rows, first = {}, None
    layouts = [(1, n) for n in sorted({1, *options.devices})] + [(n, n) for n in options.processes]
    for processes, devices in layouts:
        with tempfile.TemporaryDirectory() as folder:
            found = workers(processes, devices, options, Path(folder))
            if first is None:  # that of one device
                with np.load(Path(folder) / "jit.npz") as file:
                    first = dict(file)
            where = f"{processes} processes" if processes > 1 else f"{devices} device{'s' * (devices > 1)}"
            for name, row in found.items():
                rows[f"{where}, {name}"] = {"difference": difference(Path(folder), name, first)} | row
    write("scaling", options, rows)


if __name__ == "__main__":
    main()
