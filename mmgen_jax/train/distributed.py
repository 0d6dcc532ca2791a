"""Several processes as one: joining, being asked to stop, and falling together.

All processes run the same program on their own devices. What one process alone may see (a signal, a broken connection,
a faulty file) would leave the others waiting, so each of these is turned here into something that all of them do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

# A process that is gone is noticed after this long; JAX's own 100 s would hold up the survivors for that time.
HEARTBEAT_SECONDS = 20


class Interrupted(Exception):
    """Training was asked to stop and did, at `step`, which is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}, which is saved; the same command goes on from there")
        self.step = step


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Make this process one of several, before anything else of JAX. Clusters that JAX knows need no argument.

    Args:
        coordinator: `host:port` of process 0, the same for all.
        num_processes: how many there are.
        process_id: which one this is, from 0.
    Raises:
        ValueError: only some of the three are given.
    """
    given = (coordinator, num_processes, process_id)
    if None in given and given != (None, None, None):
        raise ValueError(f"coordinator, num_processes and process_id are {given}; give all three, or none of them")
    jax.distributed.initialize(*given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


class StopRequest:
    """Whether this run was asked to stop, by SIGTERM or Ctrl-C. A second Ctrl-C ends the process as usual.

    With several processes JAX itself catches SIGTERM and lets all processes agree on the call after which they stop.
    """

    def __init__(self) -> None:
        self._asked, self._before = False, {}

    def __enter__(self) -> StopRequest:
        # Python allows signal handlers in the main thread only.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        os.write(2, b"asked to stop: this call is finished and saved first\n")  # print is not for signal handlers
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])

    def asked(self, call: int) -> bool:
        """True from the call on after which to stop. `call` counts 0, 1, 2, ... alike in all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(call)
        return self._asked


@contextlib.contextmanager
def fall_together(*agreed: type[BaseException]) -> Iterator[None]:
    """With several processes, end this one at once on any exception that is not raised by all of them (`agreed`).

    A usual exit would wait for the others in JAX's shutdown, and they for this one in a collective operation.
    """
    try:
        yield
    except agreed:
        raise
    except BaseException:
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def to_host(tree: Any) -> Any:
    """A numpy copy of arrays that may be spread over the devices of several processes; all processes must call it."""
    return jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)
