"""A command starts itself anew with tcmalloc, once, where that is installed."""

import os
import sys

import pytest

import mmgen_jax.__main__ as cli
from mmgen_jax import allocator


class Started(Exception):
    pass


@pytest.fixture
def started(monkeypatch):
    """What was started in place of this process; there is a library to be found."""
    calls = []

    def execve(*args):
        calls.append(args)
        raise Started

    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "mmgen_jax", "train", "file.py"])
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(allocator.ctypes.util, "find_library", lambda name: f"lib{name}.so.4")
    return calls


def test_the_same_command_with_the_library(started, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "libother.so")
    with pytest.raises(Started):
        allocator.restart_with_tcmalloc()
    [(program, words, environment)] = started
    assert program == sys.executable and words == [sys.executable, "-m", "mmgen_jax", "train", "file.py"]
    assert environment == {**os.environ, "LD_PRELOAD": "libother.so libtcmalloc_minimal.so.4"}
    monkeypatch.setenv("LD_PRELOAD", environment["LD_PRELOAD"])
    assert allocator.restart_with_tcmalloc() and len(started) == 1  # there it is: not again


def test_another_allocator_is_left_alone(started, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/opt/libjemalloc.so.2")
    assert allocator.restart_with_tcmalloc() and not started


def test_without_the_library(started, monkeypatch):
    monkeypatch.setattr(allocator.ctypes.util, "find_library", lambda name: None)
    assert not allocator.restart_with_tcmalloc() and not started


def test_only_training_as_a_command_of_its_own_does_so(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mmgen", "train", "nothing.py", "--workdir", "nowhere"])
    with pytest.raises(Started):
        cli.main()
    assert cli.main(["train", "nothing.py", "--workdir", "nowhere"]) == 2  # called from Python
    monkeypatch.setattr(sys, "argv", ["mmgen", "report", "nowhere"])
    assert cli.main() == 2 and len(started) == 1
