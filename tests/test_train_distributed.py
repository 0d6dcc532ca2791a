"""Several processes on one machine equal one process, stop together and fall together."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from train_worker import experiment

from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.train.distributed import Interrupted, StopRequest, fall_together, join, to_host
from mmgen_jax.train.log import read_rows
from mmgen_jax.train.loop import fit

WORKER = Path(__file__).with_name("train_worker.py")


def start(workdir, steps, workers="none", count=2):
    """`count` processes with one device each."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return [
        subprocess.Popen(
            [sys.executable, WORKER, *map(str, (port, count, i, workdir, steps, workers))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        for i in range(count)
    ]


def finish(processes, timeout=120):
    """(return code, output) of each; none is left running."""
    try:
        return [(p.wait(timeout), p.stdout.read()) for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.stdout.close()


def assert_all_ended_well(results):
    """Every return code is 0; else what the processes said, in full: such failures are rare and hard to repeat."""
    said = "\n".join(f"--- process {i} ended with {code}:\n{output}" for i, (code, output) in enumerate(results))
    assert not any(code for code, _ in results), said


def wait_for_rows(workdir, step):
    deadline = time.monotonic() + 90
    while not any(row["step"] >= step for row in read_rows(workdir / "metrics.jsonl")):
        assert time.monotonic() < deadline, "the processes do not train"
        time.sleep(0.05)


def test_a_request_to_stop_is_noted_and_the_handlers_come_back(capfd):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert not stop.asked(0)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked(1) and "asked to stop" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):  # the second Ctrl-C is the usual one
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # while schedulers may repeat SIGTERM
        assert stop.asked(2)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_outside_the_main_thread_there_are_no_handlers_and_no_error():
    found = []

    def use():
        with StopRequest() as stop:
            found.append((stop.asked(0), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [(False, signal.SIG_DFL)]


def test_one_process_raises_as_usual():
    with pytest.raises(KeyError), fall_together(Interrupted):
        raise KeyError("x")


def test_join_needs_all_of_its_arguments_or_none():
    with pytest.raises(ValueError, match="give all three, or none"):
        join("localhost:1234", 2)


def test_interrupted_says_what_to_do():
    assert str(Interrupted(40)) == "stopped at step 40, which is saved; the same command goes on from there"
    assert Interrupted(40).step == 40


def test_to_host_gathers_what_is_split():
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    split = jax.device_put(np.arange(16.0), jax.NamedSharding(mesh, jax.P("data")))
    copy = to_host({"x": split})["x"]
    assert isinstance(copy, np.ndarray)
    np.testing.assert_array_equal(copy, np.arange(16.0))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["none", 0])
def test_two_processes_equal_one(tmp_path, workers):
    results = finish(start(tmp_path / "two", 12, workers))
    assert_all_ended_well(results)
    state = fit(experiment(12, None if workers == "none" else workers), tmp_path / "one")
    with np.load(tmp_path / "two" / "params.npz") as params:
        np.testing.assert_allclose(params["dense"], state.params["dense"]["kernel"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(params["out"], state.params["out"]["kernel"], rtol=1e-6, atol=1e-6)
    one, two = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [row["step"] for row in two] == [3, 6, 9, 12, 12]  # written once, by the first process
    np.testing.assert_allclose([row["loss"] for row in one[:4]], [row["loss"] for row in two[:4]], rtol=1e-6)
    values = [json.loads((tmp_path / name / "evaluation.json").read_text())["values"] for name in ("one", "two")]
    assert values[1] == pytest.approx(values[0], rel=1e-5) and values[0]["seen"] == pytest.approx(8, rel=0.1)
    assert "step 12/12" in results[0][1] and "step 12/12" not in results[1][1]


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_saved_step(tmp_path):
    processes = start(tmp_path / "run", 10_000_000)
    wait_for_rows(tmp_path / "run", 6)
    processes[1].send_signal(signal.SIGTERM)
    results = finish(processes)
    assert_all_ended_well(results)
    stopped = {output.split("interrupted ")[1].split()[0] for _, output in results}
    assert stopped == {str(Checkpoints(tmp_path / "run" / "checkpoints").latest)}


@pytest.mark.slow
def test_the_survivor_of_a_killed_process_is_gone_soon(tmp_path):
    processes = start(tmp_path / "run", 10_000_000)
    wait_for_rows(tmp_path / "run", 6)
    processes[1].kill()
    began = time.monotonic()
    (code, output), _ = finish(processes)
    assert code != 0 and time.monotonic() - began < 60, output
