"""Transformers: how fast they sample, compile and train, and what they need.

    python benchmarks/sampling.py samplers                     images a second of `Flow`, by sampler and steps
    python benchmarks/sampling.py tokens --lengths 64 256      tokens a second of `Tokens`, with caches and without
    python benchmarks/sampling.py sizes --names S B L XL       DiT: trace, lower, compile, steps, MFU
    python benchmarks/sampling.py remat --names S              memory of a training step, by what its gradient keeps
    python benchmarks/sampling.py masks --names S              attention with its gradient, with and without a mask

`sizes` and `remat` are of one training step (loss, gradient, AdamW, EMA) of DiT with patches of 2 on latents
of 32 x 32 x 4, 256 tokens. MFU counts 6 times the multiply-adds of the forward pass, none that are done again, over
--peak (dense TFLOP/s of the device in that type; an H100 has 989 in bfloat16). Prints JSON, and writes it to --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mmgen_jax as mm
from mmgen_jax.diffusion.dit import PRESETS, DiT
from mmgen_jax.nn.attention import attention

LATENT = (32, 32, 4)
TX = optax.adamw(1e-4)


def timed(run: Callable[[], Any]) -> float:
    """Seconds until the result is there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


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
            first, *seconds = (timed(functools.partial(one.sample, {"params": params}, k, options.batch)) for k in keys)
            rate = options.batch / statistics.median(seconds)
            rows[f"{name}, {steps} steps"] = {"first_seconds": round(first, 2), "images_per_second": round(rate, 2)}
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
                _, *seconds = (timed(functools.partial(run, jax.random.key(i))) for i in range(options.rounds + 1))
                rate = options.batch * counts["made"] / statistics.median(seconds)
                row["cached" if cached else "recomputed"] = round(rate, 1)
            row["times"] = round(row["cached"] / row["recomputed"], 2)
            rows[f"{length} tokens, {way}"] = row
    return rows


@dataclasses.dataclass(frozen=True)
class Training:
    """A training step of a DiT by flow matching."""

    network: DiT

    def state(self) -> dict[str, Any]:
        params = self.network.init(jax.random.key(0), jnp.zeros((1, *LATENT)), jnp.zeros(1), jnp.zeros(1, int))
        return {"params": params, "opt": TX.init(params), "ema": params}

    def step(self, state: dict[str, Any], x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[dict, jax.Array]:
        def loss(params: Any) -> jax.Array:
            t = jax.random.uniform(key, x.shape[:1])
            noise = jax.random.normal(jax.random.fold_in(key, 1), x.shape)
            along = t[:, None, None, None]
            out = self.network.apply(params, (1 - along) * x + along * noise, 1000 * t, y)
            return jnp.square(out - (noise - x)).mean()

        value, grads = jax.value_and_grad(loss)(state["params"])
        updates, opt = TX.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt": opt, "ema": optax.incremental_update(params, state["ema"], 1e-4)}, value


def training(options: argparse.Namespace, name: str, remat: str | None) -> Training:
    return Training(DiT(**PRESETS[name], learn_sigma=False, dtype=jnp.dtype(options.dtype), remat=remat))


def inputs(options: argparse.Namespace) -> tuple[jax.Array, jax.Array, jax.Array]:
    return jnp.ones((options.batch, *LATENT)), jnp.zeros(options.batch, int), jax.random.key(0)


def macs(name: str, tokens: int = 256) -> float:
    """Multiply-adds of the forward pass for one example: the blocks, which are nearly all of it."""
    width, depth = PRESETS[name]["width"], PRESETS[name]["depth"]
    return depth * (12 * width**2 * tokens + 2 * width * tokens**2 + 6 * width**2)


def sizes(options: argparse.Namespace) -> dict[str, Any]:
    """Trace, lower, compile, first and later steps of each size."""
    rows = {}
    for name in options.names:
        one = training(options, name, options.remat)
        state = jax.jit(one.state)()
        count = sum(x.size for x in jax.tree.leaves(state["params"]))
        step = jax.jit(one.step, donate_argnums=0)
        laps = [time.perf_counter()]
        traced = step.trace(state, *inputs(options))
        laps.append(time.perf_counter())
        lowered = traced.lower()
        laps.append(time.perf_counter())
        program = lowered.compile()
        laps.append(time.perf_counter())
        seconds = []
        for _ in range(options.rounds + 1):
            start = time.perf_counter()
            state, value = program(state, *inputs(options))
            jax.block_until_ready(value)
            seconds.append(time.perf_counter() - start)
        steady = statistics.median(seconds[1:])
        row = dict(
            zip(
                ("trace", "lower", "compile"),
                (round(b - a, 2) for a, b in zip(laps, laps[1:], strict=False)),
                strict=True,
            )
        )
        row |= {"first": round(seconds[0], 3), "steady": round(steady, 4), "parameters": count}
        row["images_per_second"] = round(options.batch / steady, 2)
        if options.peak:
            row["mfu"] = round(6 * macs(name) * options.batch / steady / (options.peak * 1e12), 4)
        rows[name] = row
    return rows


def remat(options: argparse.Namespace) -> dict[str, Any]:
    """MiB that a training step needs beside its arguments, by policy."""
    rows = {}
    for name in options.names:
        for policy in (None, "dots", "names", "full"):
            one = training(options, name, policy)
            shapes = jax.eval_shape(one.state)
            program = jax.jit(one.step, donate_argnums=0).lower(shapes, *inputs(options)).compile()
            rows[f"{name}, {policy}"] = round(program.memory_analysis().temp_size_in_bytes / 2**20, 1)
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
        pairs = [[timed(functools.partial(program, q, k, v, m)) for m in (None, mask)] for _ in range(options.rounds)]
        free, masked = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
        rows[name] = {"free_ms": round(free, 3), "masked_ms": round(masked, 3), "times": round(masked / free, 3)}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("samplers", "tokens", "sizes", "remat", "masks"))
    parser.add_argument("--names", nargs="+", choices=list(PRESETS), default=["S"])
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 4, 10, 25])
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--remat", choices=("dots", "names", "full"), help="of `sizes`")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, for MFU")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    benchmarks = {"samplers": samplers, "tokens": tokens, "sizes": sizes, "remat": remat, "masks": masks}
    rows = benchmarks[options.what](options)
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    device = f"{jax.devices()[0].device_kind}, {platform.machine()}"
    text = json.dumps({"device": device, "jax": jax.__version__, "settings": settings, "rows": rows}, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
