"""What a user waits for: seconds from `mmgen train` to the first step, and from `mmgen sample` to the first picture.

    python -m benchmarks start --names digits_vae article_vae

From the start of the process to the first row in metrics.jsonl, and to the first file of a sample of 16. Cold, the
user's cache folder is empty, so that programs are compiled and examples decoded; warm, the same commands have run
before. The data set itself is prepared, and the files of Python and its packages are in memory, in both cases.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from record import FOLDER, parse, parser, spread, write

TINY = """
import mmgen_jax as mm
labels = {"label": [i % 10 for i in range(64)]}
model = mm.VAE(modalities={"label": mm.Label(10)}, latent=2)
experiment = mm.Experiment(model=model, data=mm.data.Arrays(labels, labels), steps=100_000, batch_size=8)
"""


def mmgen(cache: Path, *words: object) -> subprocess.Popen[str]:
    """The command, with `cache` as the user's cache folder and nothing else kept compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(cache)
    command, pipe = [sys.executable, "-m", "mmgen_jax", *map(str, words)], subprocess.PIPE
    # From here, so that it is this package that is run.
    return subprocess.Popen(
        command, cwd=FOLDER.parent, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def ended(process: subprocess.Popen[str]) -> None:
    """Wait for the end. RuntimeError, with what was said, unless it is a success or one that was asked for."""
    said, _ = process.communicate()
    if process.returncode not in (0, 128 + signal.SIGTERM):
        raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{said}")


def seconds_until(there: Callable[[], bool], process: subprocess.Popen[str], start: float) -> float:
    """Seconds from `start` until `there()`, or until the process has ended, which it must not before."""
    while not there():
        if process.poll() is not None and not there():
            ended(process)
            raise RuntimeError(f"{process.args} ended without a result")
        time.sleep(0.005)
    return time.perf_counter() - start


def first_step(cache: Path, file: Path, run: Path) -> float:
    """Seconds to the first row of a training, which is then stopped and has a checkpoint."""
    rows, start = run / "metrics.jsonl", time.perf_counter()
    process = mmgen(cache, "train", file, "--workdir", run, "--log-every", 1)
    seconds = seconds_until(lambda: rows.exists() and rows.stat().st_size > 0, process, start)
    process.send_signal(signal.SIGTERM)
    ended(process)
    return seconds


def first_picture(cache: Path, run: Path) -> float:
    """Seconds to the first file of a sample."""
    out, start = run / "samples", time.perf_counter()
    process = mmgen(cache, "sample", run, "--n", 16)
    seconds = seconds_until(lambda: any(out.glob("*_*")), process, start)
    ended(process)
    return seconds


def measured(file: Path, rounds: int) -> dict[str, dict[str, float]]:
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            for how in ("cold", "warm"):
                run = Path(folder) / how
                taken.setdefault(f"train_{how}_s", []).append(first_step(cache, file, run))
                taken.setdefault(f"sample_{how}_s", []).append(first_picture(cache, run))
    return {name: spread(seconds) for name, seconds in taken.items()}


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("start", __doc__)
    flags.add_argument("--names", nargs="+", default=["digits_vae", "article_vae"], help="files of experiments/")
    flags.add_argument("--rounds", type=int, default=2, help="cold and warm starts of each")
    options = parse(flags, args, names=["tiny"], rounds=1)
    rows = {}
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            file = FOLDER.parent / "experiments" / f"{name}.py"
            if name == "tiny":
                file = Path(folder) / "tiny.py"
                file.write_text(TINY)
            ended(mmgen(Path(folder), "data", file))  # prepares it
            rows[name] = measured(file, options.rounds)
    write("start", options, rows)


if __name__ == "__main__":
    main()
