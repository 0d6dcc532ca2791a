"""What a run tells: `metrics.jsonl` for programs, TensorBoard for plots, a progress line for people.

`metrics.jsonl` has one JSON object a line, `{"step": 50, "seconds": 1.7, "loss": 0.31, ...}`, with the seconds since
the run began, pauses between its sessions left out. The row of an evaluation has the same form.
"""

from __future__ import annotations

import datetime
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmgen_jax.config import write_text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; none if there is no file. A last line cut off by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
    return rows


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for NaN and infinity, which JSON does not have."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(finite(row)) + "\n"


class Log:
    """The log of one session of a run, from step `start` on; rows of later steps, of a session cut off, are dropped.

    Only the first of several processes writes and prints.
    """

    def __init__(self, workdir: Path, start: int, steps: int, batch_size: int) -> None:
        self.workdir, self.path = workdir, workdir / "metrics.jsonl"
        self.batch_size, self.active = batch_size, jax.process_index() == 0
        kept = [row for row in read_rows(self.path) if row["step"] <= start]
        self._began = time.perf_counter() - (kept[-1]["seconds"] if kept else 0.0)
        self._mark = (start, time.perf_counter())
        if self.active:
            from tensorboardX import SummaryWriter

            write_text(self.path, "".join(_line(row) for row in kept))
            self._rows = self.path.open("a", buffering=1)  # a line at a time, so that it can be followed
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
            if start:
                print(f"going on from step {start}", file=sys.stderr, flush=True)
            self._progress = Progress(start, steps)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.active:
            self._progress.close()
            self._board.close()
            self._rows.close()

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        if self.active:
            seconds = round(time.perf_counter() - self._began, 3)
            self._rows.write(_line({"step": step, "seconds": seconds, **values}))
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def train_row(self, step: int, values: Mapping[str, float], at: float | None = None) -> None:
        """Write the metrics of a training step with the speed since the last row, and show them.

        at: when the step was made, by `time.perf_counter()`; metrics are read some time after. None: just now.
        """
        (last, then), now = self._mark, time.perf_counter() if at is None else at
        speed = (step - last) / max(now - then, 1e-9)
        self._mark = (step, now)
        self.row(step, {**values, "steps_per_second": round(speed, 3)})
        if self.active:
            text = " ".join(f"{name} {value:.4g}" for name, value in values.items() if "loss" in name)
            self._progress.show(step, f"{text} {speed:.4g} steps/s {speed * self.batch_size:.4g} examples/s")

    def restart_clock(self, step: int) -> None:
        """Leave out of the speed what was not training: compilation, evaluation, saving."""
        self._mark = (step, time.perf_counter())


class Progress:
    """A bar with the time left on a terminal, plain lines elsewhere."""

    def __init__(self, start: int, steps: int) -> None:
        self._began, self._start, self._steps, self._bar = time.perf_counter(), start, steps, None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=steps, completed=start)
            self._bar.start()

    def show(self, step: int, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
            return
        each = (time.perf_counter() - self._began) / max(step - self._start, 1)
        left = datetime.timedelta(seconds=round(each * (self._steps - step)))
        print(f"step {step}/{self._steps} {text} {left} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
