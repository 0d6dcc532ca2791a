"""The compiled training step: seconds to trace, lower and compile it, milliseconds it takes, FLOPs, memory, MFU.

    python -m benchmarks jit
    python -m benchmarks jit --whole DiT-XL --traced --dtype bfloat16 --remat dots --batch 64

It is the program of `mmgen train`, of the experiments of that name on made-up examples. Compiling is measured with an
empty cache and again with one that has the program. A step is that of calls of up to `steps_per_call` steps, in blocks
of some --seconds; the first step is a call of its own. FLOPs are those of matrix products and convolutions (see
`flops.py`), MFU is these over the peak of the device, if that is known. Bytes and memory are what the compiler says of
the program, for one step of a loop. `compilations` counts those of the jitted program over calls with other rows and
other numbers of steps: it must be 1. Those of --traced are not compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bare import Bare, memory, run
from dit import PRESETS, training
from flops import flops, peak
from jax.experimental.compilation_cache import compilation_cache
from record import FOLDER, parse, parser, spread, timed, write

import mmgen_jax as mm
from mmgen_jax.types import TrainState

EXPERIMENTS = ("article_vae", "digits_vae", "digits_flow", "digits_gan", "digits_tokens")
DITS = tuple(f"DiT-{size}" for size in PRESETS)


def experiment(name: str, options: argparse.Namespace) -> mm.Experiment:
    """What `name` stands for, on one device, changed as the options say."""
    if name == "tiny":
        model = mm.VAE(modalities={"label": mm.Label(10)}, latent=2, objective=mm.vae.MoPoE())
        found = mm.Experiment(model=model, data=mm.data.Arrays({}), steps=100, batch_size=8, steps_per_call=4)
    elif name in DITS:
        found = training(name.removeprefix("DiT-"), batch_size=16, remat=options.remat)
    else:
        found = mm.load_experiment(FOLDER.parent / "experiments" / f"{name}.py")
    model = in_dtype(found.model, options.dtype) if options.dtype else found.model
    size = options.batch or found.batch_size
    return dataclasses.replace(found, model=model, batch_size=size, mesh=mm.Mesh(data=1))


def in_dtype(model: Any, dtype: str) -> Any:
    """The model with networks that compute in `dtype`; of a second stage that is within, those."""
    if isinstance(model, mm.Latent):
        return dataclasses.replace(model, second=in_dtype(model.second, dtype))
    return dataclasses.replace(model, dtype=dtype)


def traced(bare: Bare, state: TrainState, resident: Any) -> tuple[Any, dict[str, Any]]:
    """The lowered program, and what is known of it by then. Of the state, shapes suffice."""
    call = (state, resident, bare.rows(), np.int32(1))
    trace, in_jaxpr = timed(bare.program(state).trace, *call)
    lower, lowered = timed(in_jaxpr.lower)
    count = sum(x.size for x in jax.tree.leaves(state.params))
    row = {"parameters": count, "batch": bare.experiment.batch_size, "trace_s": trace, "lower_s": lower}
    return lowered, row | {"gflop_per_step": model_flops(bare, in_jaxpr.jaxpr, call) / 1e9}


def model_flops(bare: Bare, jaxpr: Any, call: tuple[Any, ...]) -> int:
    """FLOPs of one step, which is one turn of the program's only `while_loop`; without those of rematerialisation."""
    if getattr(bare.experiment.model, "remat", None) is None:
        return flops(jaxpr)
    model = dataclasses.replace(bare.experiment.model, remat=None)
    plain = Bare(dataclasses.replace(bare.experiment, model=model))
    return flops(plain.program(call[0]).trace(*call).jaxpr)


def whole(bare: Bare, options: argparse.Namespace) -> dict[str, Any]:
    """All that is measured of one experiment."""
    state = bare.state()
    resident = bare.resident(state)
    lowered, row = traced(bare, state, resident)
    jitted = bare.program(state)
    with empty_cache():
        row["compile_s"], program = timed(lowered.compile)
        again = jitted.lower(state, resident, bare.rows(), np.int32(1))
        row["compile_cached_s"], _ = timed(again.compile)
        row["compilations"], state = compilations(bare, jitted, state, resident)
    row["mib_accessed"] = program.cost_analysis()["bytes accessed"] / 2**20
    return row | memory(program) | steady(bare, program, state, resident, row["gflop_per_step"], options)


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """A persistent cache of compiled programs in an empty folder, which keeps all of them, in place of the user's."""
    with tempfile.TemporaryDirectory() as folder:
        ours = {
            "jax_compilation_cache_dir": folder,
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        before = {name: getattr(jax.config, name) for name in ours}
        try:
            set_cache(ours)
            yield
        finally:
            set_cache(before)


def set_cache(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it is opened once, where it was told to be then


def compilations(bare: Bare, program: Any, state: TrainState, resident: Any) -> tuple[int, TrainState]:
    """How often the jitted program is compiled, in calls that differ in what may differ; and the state after them."""
    for i in range(3):
        state, _ = program(state, resident, bare.rows(i), np.int32(1 + i % bare.experiment.steps_per_call))
    return program._cache_size(), state


def steady(
    bare: Bare, program: Any, state: TrainState, resident: Any, gflop: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds of the first step that the program makes, and of later ones in blocks."""
    e, rows, blocks = bare.experiment, bare.rows(), []
    first, (state, _) = timed(run, program, state, resident, rows, 1)
    one, (state, _) = timed(run, program, state, resident, rows, 1)
    steps = max(1, round(options.seconds / one))
    steps = steps if steps < e.steps_per_call else steps // e.steps_per_call * e.steps_per_call  # whole calls
    for _ in range(options.rounds):
        seconds, (state, _) = timed(run, program, state, resident, rows, steps)
        blocks.append(seconds / steps)
    row = {"first_ms": 1e3 * first, "step_ms": spread(blocks, 1e3), "steps_in_a_block": steps}
    step = 1e-3 * row["step_ms"]["median"]
    row |= {"examples_per_s": e.batch_size / step, "gflop_per_s": gflop / step}
    most = peak(jax.devices()[0].device_kind, jnp.dtype(getattr(e.model, "dtype", jnp.float32)).name)
    return row | ({"mfu": 1e9 * gflop / step / most} if most else {})


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("jit", __doc__)
    flags.add_argument("--whole", nargs="*", default=list(EXPERIMENTS), choices=("tiny", *EXPERIMENTS, *DITS))
    flags.add_argument("--traced", nargs="*", default=list(DITS), choices=("tiny", *EXPERIMENTS, *DITS))
    flags.add_argument("--batch", type=int, help="examples in a step (as the experiment says; DiT: 16)")
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), help="what networks compute in")
    flags.add_argument("--remat", choices=("dots", "names", "full"), help="what the gradient of DiT keeps")
    flags.add_argument("--rounds", type=int, default=5, help="blocks of steps")
    flags.add_argument("--seconds", type=float, default=1.0, help="that a block lasts, or one step")
    options = parse(flags, args, whole=["tiny"], traced=["DiT-S"], rounds=2, seconds=0.01)
    rows = {}
    for name in options.whole:
        rows[name] = whole(Bare(experiment(name, options)), options)
        jax.clear_caches()
    for name in options.traced:
        bare = Bare(experiment(name, options))
        rows[f"{name}, traced"] = traced(bare, bare.state_shapes(), bare.resident())[1]
    write("jit", options, rows)


if __name__ == "__main__":
    main()
