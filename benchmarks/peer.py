"""A process of another library, beside ours: its Python need not have JAX, nor ours torch.

    one line of JSON on its stdin, {"do": METHOD, ...}  ->  one line of JSON on its stdout

Arrays go through npz files that are read without pickle. Between two requests the process waits for its input, so that
it takes nothing from what is measured elsewhere. Needs nothing but NumPy, because both sides import it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def load(path: str | Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


class Peer:
    """The process, seen from our side; `folder` is where arrays change hands."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.command, self.folder = command, folder
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to a request. RuntimeError if there is none; what went wrong stands on stderr then."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.command[0]} ended at {do!r}; does this Python have what it needs installed?")
        return json.loads(line)

    def send(self, do: str, arrays: Arrays, field: str, **request: Any) -> dict[str, Any]:
        """The same with arrays."""
        np.savez(self.folder / "sent.npz", **arrays)
        return self.ask(do, **{field: str(self.folder / "sent.npz")}, **request)

    def fetch(self, do: str, **request: Any) -> tuple[dict[str, Any], Arrays]:
        """The same with arrays in the answer."""
        answer = self.ask(do, out=str(self.folder / "out.npz"), **request)
        return answer, load(self.folder / "out.npz")


@contextlib.contextmanager
def peer(*command: str) -> Iterator[Peer]:
    """The process that `command` starts, until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        process = Peer(command, Path(folder))
        try:
            yield process
        finally:
            process.process.stdin.close()
            process.process.wait()


def serve(worker: Any) -> None:
    """The other side: every request is a call of a method of `worker`, which returns what is to be said of it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(worker, request.pop("do"))(**request)), file=answers, flush=True)
