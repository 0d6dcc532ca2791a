"""What every benchmark writes down: one JSON a run, with all that is needed to say what its numbers mean.

    {"benchmark": "jit", "command": ..., "device": ..., "versions": {...}, "load_before": 0.05, "settings": {...},
     "rows": {"digits_vae": {"parameters": 1000, "step_ms": {"median": 2.0, "low": 1.9, "high": 2.2, "runs": 5}}}}

What was measured several times is written as its median, extremes and number. `table.py` makes tables of these files.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

T = TypeVar("T")

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
LOAD = os.getloadavg()[0]  # before this process adds to it
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
ALLOCATORS = ("tcmalloc", "jemalloc")


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """The command line of benchmark `name`, with the options that all have; to be read by `parse`."""
    result = argparse.ArgumentParser(
        f"python -m benchmarks {name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--quick", action="store_true", help="tiny and few: shows that it works, and keeps nothing")
    result.add_argument("--out", type=Path, help="the JSON file (benchmarks/results/NAME-BACKEND.json)")
    return result


def parse(parser: argparse.ArgumentParser, args: Sequence[str] | None, **quick: Any) -> argparse.Namespace:
    """The options, with `command`: what was typed. With --quick the values `quick` take the place of the defaults."""
    args = sys.argv[1:] if args is None else list(args)
    if "--quick" in args:
        parser.set_defaults(**quick)
    options = parser.parse_args(args)
    words = ["FILE" if word == str(options.out) else word for word in args]  # no path of this machine
    options.command = shlex.join([*parser.prog.split(), *words])
    return options


def timed(function: Callable[..., T], *args: Any) -> tuple[float, T]:
    """Seconds until the result of `function(*args)` is there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return time.perf_counter() - start, result


def spread(values: Iterable[float], scale: float = 1.0) -> dict[str, float]:
    """Median, extremes and number of `scale` times `values`."""
    values = [scale * value for value in values]
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "runs": len(values)}


def rounded(tree: Any) -> Any:
    """Four digits of every float of a JSON tree, which is more than any of these measurements is worth."""
    if isinstance(tree, Mapping):
        return {name: rounded(value) for name, value in tree.items()}
    return float(f"{tree:.4g}") if isinstance(tree, float) else tree


def device() -> str:
    """The accelerator, or the processor, and how many of them; on a CPU also the allocator, which decides its speed."""
    if jax.default_backend() != "cpu":
        return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return f"{processor()}, {platform.machine()}, {len(os.sched_getaffinity(0))} processors, {allocator()}"


def processor() -> str:
    """Its name. Linux alone says it in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def allocator() -> str:
    loaded = os.environ.get("LD_PRELOAD", "")
    return next((name for name in ALLOCATORS if name in loaded), "the system's malloc")


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def write(name: str, options: argparse.Namespace, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the record of a run as JSON and write it to --out; without, to `results/`, unless --quick."""
    settings = {key: value for key, value in vars(options).items() if key not in ("command", "out")}
    record = {
        "benchmark": name,
        "command": options.command,
        "device": device(),
        "versions": versions(),
        "load_before": rounded(LOAD),
        "settings": settings,
        "rows": rounded(rows),
    }
    text = json.dumps(record, indent=2)
    print(text)
    out = options.out or (None if options.quick else RESULTS / f"{name}-{jax.default_backend()}.json")
    if out is not None:
        out.write_text(text + "\n")
