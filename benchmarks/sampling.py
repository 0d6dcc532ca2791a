"""Transformers: how fast they sample, and what their training steps and their attention need.

    python -m benchmarks sampling samplers                     images a second of `Flow`, by sampler and steps
    python -m benchmarks sampling tokens --lengths 64 256      tokens a second of `Tokens`, with caches and without
    python -m benchmarks sampling remat --names S              memory of a training step, by what its gradient keeps
    python -m benchmarks sampling masks --names S              attention with its gradient, with and without a mask

`remat` is of the training step of DiT in `dit.py`. How fast that is, `jit` says.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bare import Bare, memory
from dit import PRESETS, training
from record import parse, parser, spread, timed, write

import mmgen_jax as mm
from mmgen_jax.nn.attention import attention


def samplers(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures and labels a second from an untrained `Flow` of 28 x 28 pictures: its values do not change its speed."""
    modalities = {"image": mm.Image(28, 28, 1, patch=4), "label": mm.Label(10)}
    model = mm.Flow(modalities=modalities, width=128, joint=2, depth=4, heads=4, dtype=options.dtype)
    params = jax.jit(model.init)(jax.random.key(0))[0]
    kinds = {"Euler": mm.diffusion.Euler(), "Heun": mm.diffusion.Heun(), "DPM-Solver++ 2M": mm.diffusion.DPMSolver()}
    rows = {}
    for name, sampler in kinds.items():
        for steps in options.steps:
            one = dataclasses.replace(model, sampler=sampler, steps=steps)
            keys = jax.random.split(jax.random.key(0), options.rounds + 1)
            first, *later = (timed(one.sample, {"params": params}, key, options.batch)[0] for key in keys)
            rate = spread(options.batch / seconds for seconds in later)
            rows[f"{name}, {steps} steps"] = {"first_s": first, "images_per_s": rate}
    return rows


def tokens(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second from an untrained `Tokens`: the last quarter of so many tokens, given the first three."""
    ways = {"filled in 12 steps": mm.tokens.MaskGIT(12), "written": mm.tokens.Write()}
    rows = {}
    for length in options.lengths:
        counts = {"given": length - length // 4, "made": length // 4}
        modalities = {name: mm.Text(count, vocabulary=mm.Bytes()) for name, count in counts.items()}
        for way, decoding in ways.items():
            sizes = {"width": 256, "depth": 4, "heads": 4, "dtype": options.dtype}
            model = mm.Tokens(modalities=modalities, decoding={"made": decoding}, **sizes)
            params = jax.jit(model.init)(jax.random.key(0))[0]
            x = {name: jnp.full((options.batch, count), 65, jnp.int32) for name, count in counts.items()}
            there = {name: jnp.full(options.batch, name == "given") for name in modalities}
            row = {}
            for cached in (True, False):
                run = functools.partial(mm.tokens.sampling.make, model, ("made",), params, x, there, cached=cached)
                _, *later = (timed(run, jax.random.key(i))[0] for i in range(options.rounds + 1))
                made = options.batch * counts["made"]
                row["cached_per_s" if cached else "recomputed_per_s"] = spread(made / seconds for seconds in later)
            row["times"] = row["cached_per_s"]["median"] / row["recomputed_per_s"]["median"]
            rows[f"{length} tokens, {way}"] = row
    return rows


def remat(options: argparse.Namespace) -> dict[str, Any]:
    """MiB that a training step needs, for its arguments and beside them, by policy."""
    rows = {}
    for name in options.names:
        for policy in (None, "dots", "names", "full"):
            e = training(name, options.batch, options.dtype, policy)
            bare = Bare(dataclasses.replace(e, mesh=mm.Mesh(data=1)))
            state = bare.state_shapes()
            program = bare.program(state).lower(state, bare.resident(), bare.rows(), np.int32(1)).compile()
            rows[f"{name}, {policy}"] = memory(program)
    return rows


def masks(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of attention with its gradient, with all tokens seen: without a mask, and with one that says so."""
    rows = {}
    for name in options.names:
        width, heads = PRESETS[name]["width"], PRESETS[name]["heads"]
        shape = (options.batch, 256, heads, width // heads)
        q, k, v = (jax.random.normal(jax.random.key(i), shape, options.dtype) for i in range(3))
        mask = jnp.ones((options.batch, 1, 1, 256), bool)

        def loss(q: Any, k: Any, v: Any, mask: Any) -> jax.Array:
            return jnp.square(attention(q, k, v, mask=mask).astype(jnp.float32)).mean()

        program = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
        for seen in (None, mask):
            jax.block_until_ready(program(q, k, v, seen))
        pairs = [[timed(program, q, k, v, seen)[0] for seen in (None, mask)] for _ in range(options.rounds)]
        free, masked = (spread(side, 1e3) for side in zip(*pairs, strict=True))
        rows[name] = {"free_ms": free, "masked_ms": masked, "times": masked["median"] / free["median"]}
    return rows


def main(args: Sequence[str] | None = None) -> None:
    benchmarks = {"samplers": samplers, "tokens": tokens, "remat": remat, "masks": masks}
    flags = parser("sampling", __doc__)
    flags.add_argument("what", choices=benchmarks)
    flags.add_argument("--names", nargs="+", choices=list(PRESETS), default=["S"], help="sizes of DiT")
    flags.add_argument("--steps", nargs="+", type=int, default=[1, 4, 10, 25], help="of the samplers")
    flags.add_argument("--lengths", nargs="+", type=int, default=[64, 256, 1024], help="numbers of tokens")
    flags.add_argument("--batch", type=int, default=16)
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parse(flags, args, steps=[1], lengths=[8], batch=1, rounds=1)
    write(f"sampling_{options.what}", options, benchmarks[options.what](options))


if __name__ == "__main__":
    main()
