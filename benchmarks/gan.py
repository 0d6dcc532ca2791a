"""Games: images a second that the critic sees in SNGAN's, StyleGAN2's and R3GAN's steps, in one program or in several.

    python -m benchmarks gan
    python -m benchmarks gan --cases sngan_32 --batch 64 --dtype bfloat16

A step is k updates of the critic, each on images of its own, and one of the generator. `fused`: all of it one compiled
program, as the library trains. `separate`: the same functions as a program for each player, dispatched k + 1 times.
Blocks of some --seconds take turns. D-images are real images that the critic is shown, k times --batch in a step;
lazy terms count as often as they are taken. The cases are games on made-up pictures:

    sngan_32         hinge, spectral norm of the critic, k = 5, width 128
    stylegan2_128    non-saturating, R1 every 16 steps and path lengths every 4, width 128 at full size and up to 512
    r3gan_32         RpGAN with R1 and R2, exact and at every step, width 768 at all sizes: the preset for CIFAR-10
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from alternating import alternating, compared
from record import parse, parser, spread, write

import mmgen_jax as mm
from mmgen_jax.gan import game
from mmgen_jax.types import Batch, TrainState

BATCHES = {"sngan_32": 64, "stylegan2_128": 32, "r3gan_32": 64, "tiny": 4}


def model(name: str, dtype: str) -> mm.GAN:
    """The game of a case."""
    gan = mm.gan
    image, k, fields = {
        "sngan_32": (mm.Image(32, 32, 3, features=128), 5, sngan()),
        "stylegan2_128": (mm.Image(128, 128, 3, features=128), 1, stylegan2()),
        "r3gan_32": (mm.Image(32, 32, 3, features=768), 1, {"networks": gan.R3GAN(growth=1)}),
        "tiny": (mm.Image(6, 6, 1, features=2), 2, {"networks": gan.DCGAN(), "penalties": ()}),
    }[name]
    return mm.GAN(modalities={"image": image}, critic_steps=k, dtype=dtype, **fields)


def sngan() -> dict[str, Any]:
    return {"networks": mm.gan.SNGAN(), "loss": mm.gan.Hinge(), "penalties": (), "spectral": "critic"}


def stylegan2() -> dict[str, Any]:
    return {
        "noise": 512,
        "width": 512,
        "networks": mm.gan.StyleGAN2(growth=4),
        "loss": mm.gan.NonSaturating(),
        "penalties": (mm.gan.R1(gamma=0.1, every=16),),
        "path_length": mm.gan.PathLength(),
    }


class Side:
    """One way of making steps, `step(state, batch)`, with its state and always the same batch."""

    def __init__(self, step: Callable[..., TrainState], state: TrainState, batch: Batch) -> None:
        self.step, self.state, self.batch = step, state, batch

    def run(self, steps: int) -> dict[str, float]:
        """Seconds for so many further steps, of the clock and of all processors.

        Raises RuntimeError if the numbers are finite no more, which would look fast.
        """
        start, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.state = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
        if not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(self.state.params)):
            raise RuntimeError(f"parameters are not finite after {int(self.state.step)} steps")
        return taken


def fused(m: mm.GAN, tx: Any) -> Callable[..., TrainState]:
    """A step as one program."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, batch: Batch) -> TrainState:
        return m.step(tx, state, batch, jax.random.fold_in(jax.random.key(0), state.step))[0]

    return step


def separate(m: mm.GAN, tx: Any) -> Callable[..., TrainState]:
    """A step as one program for each player, and the parts of the batch cut beforehand."""

    @functools.partial(jax.jit, donate_argnums=0)
    def critic(state: TrainState, batch: Batch, i: jax.Array) -> TrainState:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), state.step), i)
        return game.critic_update(m, tx, state, batch, key, state.step * m.critic_steps + i)[0]

    @functools.partial(jax.jit, donate_argnums=0)
    def generator(state: TrainState, batch: Batch) -> TrainState:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), state.step), m.critic_steps)
        state = game.generator_update(m, tx, state, batch, key)[0]
        return state.replace(step=state.step + 1)

    def step(state: TrainState, parts: list[Batch]) -> TrainState:
        for i, part in enumerate(parts):
            state = critic(state, part, jnp.int32(i))
        return generator(state, parts[0])

    return step


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and D-images a second of a case, both ways."""
    m = model(name, options.dtype)
    k, size = m.critic_steps, options.batch or BATCHES[name]
    tx = mm.Players(critic_steps=k).make(10**6)
    values = {"image": jax.random.uniform(jax.random.key(1), (k * size, *m.modalities["image"].shape))}
    whole = Batch(values, {"image": jnp.ones(k * size, bool)})
    parts = [whole.take(jnp.arange(i, k * size, k)) for i in range(k)]
    start = jax.jit(lambda key: TrainState.create(m, tx, key))
    ways = {"fused": (fused, whole), "separate": (separate, parts)}
    sides = {way: Side(make(m, tx), start(jax.random.key(0)), x) for way, (make, x) in ways.items()}
    row: dict[str, Any] = {"batch": size, "critic_steps": k}
    for player, params in sides["fused"].state.params.items():
        row[f"{player}_parameters"] = sum(x.size for x in jax.tree.leaves(params))
    for way, side in sides.items():
        row[f"{way}_first_s"] = side.run(1)["seconds"]
    blocks = alternating({way: side.run for way, side in sides.items()}, options.seconds, options.rounds)
    for way in sides:
        row[f"{way}_d_images_per_s"] = spread(1e3 * k * size / ms for ms in blocks[f"{way}_ms"])
        row[f"{way}_ms"] = spread(blocks[f"{way}_ms"])
    return row | {"times_faster": compared(blocks, "separate", "fused")["times_faster"]}


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("gan", __doc__)
    flags.add_argument(
        "--cases", nargs="+", choices=list(BATCHES), default=[name for name in BATCHES if name != "tiny"]
    )
    flags.add_argument("--batch", type=int, help=f"examples of one update ({BATCHES})")
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    flags.add_argument("--rounds", type=int, default=5, help="blocks of steps")
    flags.add_argument("--seconds", type=float, default=5.0, help="that a block lasts, or one step")
    options = parse(flags, args, cases=["tiny"], rounds=2, seconds=0.01)
    rows = {}
    for name in options.cases:
        rows[name] = measured(name, options)
        jax.clear_caches()
    write("gan", options, rows)


if __name__ == "__main__":
    main()
