"""Training steps and sampling against PyTorch: the same networks, batch and Adam, ours compiled by XLA.

    python -m benchmarks versus_torch --torch-python ~/torch/bin/python --channels-last
    python -m benchmarks versus_torch --only mlp_vae conv_vae --seconds 5 --rounds 7

It needs `torch`, which nothing else here does; in an environment of its own, if you like, whose Python is then named
by --torch-python. It runs in a process of its own (`torch_worker.py`), with its fused Adam: eagerly, and compiled by
`torch.compile`; with --channels-last also in that layout. Ours is the compiled program of the training loop, ten steps
in one call, which also draws the batch from what is in memory and computes its metrics. Both sides start from the same
weights, and before anything is timed it is asserted that they compute the same loss and the same norm of the gradient.
Blocks of steps are taken in turn; `times_faster` is the ratio of medians, with the fastest form of PyTorch.

If tcmalloc is installed, give it to both: LD_PRELOAD=libtcmalloc_minimal.so.4 (XLA on CPU allocates for every step).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from alternating import Ours, alternating, compared
from peer import Arrays, Peer, peer
from record import parse, parser, spread, timed, write

import mmgen_jax as mm
from mmgen_jax.diffusion.dit import PRESETS, DiT
from mmgen_jax.gan import game
from mmgen_jax.materialized import compiler_options
from mmgen_jax.nn.embed import patch_grid, patch_positions
from mmgen_jax.nn.mlp import MLP
from mmgen_jax.nn.rope import frequencies, place_features
from mmgen_jax.types import Array, Batch, Params
from mmgen_jax.vae.fusion import membership, subsets_of

TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}  # of loss and gradient, relative
Losses = Callable[[Params], tuple[Array, Array]]  # the loss at `data`, and the norm of its gradient


@dataclasses.dataclass(frozen=True)
class Case:
    """What is compared: our weights, our losses at fixed numbers, our program, and the same numbers for PyTorch."""

    kind: str  # its name in `torch_worker.py`
    params: Params
    losses: Losses
    run: Callable[[int], dict[str, float]]
    data: Arrays
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"  # what networks compute in


def vae(kind: str, image: mm.Image, latent: int, batch_size: int) -> Case:
    """A VAE of black and white pictures."""
    plain = mm.vae.ELBO(fusion=mm.vae.ProductOfExperts(prior=False))  # of the one modality there is
    model = mm.VAE(modalities={"image": image}, latent=latent, objective=plain)
    rng = np.random.default_rng(0)
    x = (rng.random((1024, 28, 28, 1)) > 0.8).astype(np.float32)
    data = Batch({"image": x}, {"image": np.ones(len(x), bool)})
    params = jax.jit(lambda key: model.init(key)[0])(jax.random.key(0))
    some = data.take(np.arange(batch_size))
    noise = model.objective.noise(jax.random.key(1), model.encode(params, some))

    def loss(params: Params) -> Array:
        return model.loss(params, some.masked(), noise, jnp.int32(0))[0].mean()

    inputs = {"x": channels_first(some.values["image"]), "eps": np.asarray(noise.z).reshape(batch_size, latent)}
    return Case(kind, params, value_and_norm(loss), Ours(model, params, data, 1e-3, batch_size).run, inputs)


def mlp_vae(options: argparse.Namespace) -> Case:
    """The survey's autoencoder, 784-512-256-2."""
    networks = {"encoder": MLP(256, (512,)), "decoder": MLP((28, 28, 1), (256, 512))}
    return vae("mlp_vae", mm.Image(28, 28, 1, likelihood=mm.Bernoulli(), **networks), 2, 128)


def conv_vae(options: argparse.Namespace) -> Case:
    """The default networks of a picture of 28 x 28."""
    return vae("conv_vae", mm.Image(28, 28, 1, likelihood=mm.Bernoulli()), 16, 128)


def mopoe(options: argparse.Namespace) -> Case:
    """MoPoE of five pictures of 28 x 28 x 3 and all 31 sets of them, the default networks."""
    names, batch_size = [f"view_{i}" for i in range(5)], 64
    modalities = {name: mm.Image(28, 28, 3, likelihood=mm.Laplace(1.0)) for name in names}
    model = mm.VAE(modalities=modalities, latent=64, objective=mm.vae.MoPoE())
    rng = np.random.default_rng(0)
    values = {name: rng.random((1024, 28, 28, 3), dtype=np.float32) for name in names}
    data = Batch(values, {name: np.ones(1024, bool) for name in names})
    params = jax.jit(lambda key: model.init(key)[0])(jax.random.key(0))
    some = data.take(np.arange(batch_size))
    noise = model.objective.noise(jax.random.key(1), model.encode(params, some))

    def loss(params: Params) -> Array:
        return model.loss(params, some.masked(), noise, jnp.int32(0))[0].mean()

    inputs = {"eps": np.asarray(noise.z).reshape(batch_size, -1), "gumbel": np.asarray(noise.choice)}
    inputs |= {"members": np.float32(membership(subsets_of(tuple(names)), tuple(names)))}
    inputs |= {name: channels_first(x) for name, x in some.values.items()}
    return Case("mopoe", params, value_and_norm(loss), Ours(model, params, data, 1e-3, batch_size).run, inputs)


def noised(x: Array, noise: Array, t: Array) -> Array:
    along = t[:, None, None, None]
    return (1 - along) * x + along * noise


class FlowStep:
    """Steps of a DiT by rectified flow, one in each call."""

    def __init__(self, network: DiT, params: Params, x: Array, y: Array) -> None:
        tx = optax.adam(1e-3)

        def step(state: tuple[Params, Any, Array]) -> tuple[Params, Any, Array]:
            params, opt, key = state
            key, *keys = jax.random.split(key, 3)
            noise, t = jax.random.normal(keys[0], x.shape), jax.random.uniform(keys[1], x.shape[:1])
            grads = jax.grad(flow_loss)(params, network, x, y, t, noise)
            updates, opt = tx.update(grads, opt, params)
            return optax.apply_updates(params, updates), opt, key

        self.state = jax.tree.map(jnp.array, params), tx.init(params), jax.random.key(0)
        self.step = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())

    def run(self, steps: int) -> dict[str, float]:
        jax.block_until_ready(self.state)
        start, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.state = self.step(self.state)
        jax.block_until_ready(self.state)
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


def flow_loss(params: Params, network: DiT, x: Array, y: Array, t: Array, noise: Array) -> Array:
    out = network.apply({"params": params}, noised(x, noise, t), 1000 * t, y)
    return jnp.square(out - (noise - x)).mean()


def dit_parts(size: str, options: argparse.Namespace) -> tuple[DiT, Params, Arrays]:
    """The network, weights none of which is zero, and inputs as PyTorch takes them."""
    network, side = DiT(**PRESETS[size], learn_sigma=False), options.latent
    rng = np.random.default_rng(0)
    x, y = (
        rng.normal(size=(options.dit_batch, side, side, 4)).astype(np.float32),
        rng.integers(0, 1000, options.dit_batch),
    )
    init = jax.jit(network.init)(jax.random.key(0), x[:1], jnp.zeros(1), jnp.zeros(1, int))["params"]
    params = jax.tree.map(lambda p: p + 0.02 * rng.normal(size=p.shape).astype(np.float32), init)
    places = place_features(patch_positions(patch_grid((side, side), (2, 2)), (1, 1), (1, 1)), network.width)
    tables = {"places": places.astype(np.float32), "frequencies": np.float32(frequencies(128))}
    return network, params, {"x": x, "y": y, **tables}


def dit(size: str, options: argparse.Namespace, dtype: str = "float32") -> Case:
    network, params, inputs = dit_parts(size, options)
    network = network.clone(dtype=jnp.dtype(dtype))
    rng = np.random.default_rng(1)
    x, y = jnp.asarray(inputs["x"]), jnp.asarray(inputs["y"])
    t, noise = np.float32(rng.random(len(x))), rng.normal(size=x.shape).astype(np.float32)
    losses = value_and_norm(lambda p: flow_loss(p, network, x, y, t, noise))
    data = inputs | {"x": channels_first(inputs["x"]), "noise": channels_first(noise), "t": t}
    return Case("dit", params, losses, FlowStep(network, params, x, y).run, data, dtype=dtype)


def dit_s(options: argparse.Namespace) -> Case:
    """A training step of DiT-S."""
    return dit("S", options)


def dit_b(options: argparse.Namespace) -> Case:
    """A training step of DiT-B."""
    return dit("B", options)


def dit_s_bfloat16(options: argparse.Namespace) -> Case:
    """A training step of DiT-S whose network computes in bfloat16; PyTorch's by autocast."""
    return dit("S", options, "bfloat16")


def euler_50(options: argparse.Namespace) -> Case:
    """Samples of DiT-S in 50 of Euler's steps."""
    network, params, inputs = dit_parts("S", options)
    y, noise, steps = jnp.asarray(inputs["y"]), inputs.pop("x"), 50

    def sampled(params: Params, x: Array) -> Array:
        def step(x: Array, t: Array) -> tuple[Array, None]:
            return x - network.apply({"params": params}, x, 1000 * jnp.full(len(x), t), y) / steps, None

        return jax.lax.scan(step, x, 1 - jnp.arange(steps) / steps)[0]

    program = jax.jit(lambda params, key: sampled(params, jax.random.normal(key, noise.shape)))
    # Its numbers grow with random weights: what is compared are those with little of them.
    small = jax.tree.map(lambda p: 0.3 * p, params)

    def run(times: int) -> dict[str, float]:
        start, used = time.perf_counter(), time.process_time()
        for i in range(times):
            jax.block_until_ready(program(small, jax.random.key(i)))
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}

    def losses(params: Params) -> tuple[Array, Array]:
        return jnp.square(sampled(params, noise)).mean(), jnp.ones(())

    return Case("sample", small, losses, run, inputs | {"noise": channels_first(noise)}, {"steps": steps})


def r3gan(options: argparse.Namespace) -> Case:
    """One step of either player: relativistic pairing, R1 and R2 by exact slopes, pictures of 32 x 32 x 3."""
    gamma, batch_size = 0.3, 64
    penalties = (mm.gan.R1(gamma=gamma), mm.gan.R2(gamma=gamma))
    image = mm.Image(32, 32, 3, features=32)
    model = mm.GAN(modalities={"image": image}, noise=64, width=64, penalties=penalties, networks=mm.gan.R3GAN())
    params = jax.jit(lambda key: model.init(key)[0])(jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.02 * rng.normal(size=p.shape).astype(np.float32), params)
    x = rng.random((1024, 32, 32, 3), dtype=np.float32)
    real = {"image": jnp.asarray(2 * x[:batch_size] - 1)}
    own = {name: rng.normal(size=(batch_size, n)).astype(np.float32) for name, n in (("", 64), ("image", model.own))}
    there = {"image": jnp.ones(batch_size, bool)}

    def play(params: Params) -> game.Round:
        fake = model.generator_network.apply({"params": params["generator"]}, own, real, there)
        return game.Round(real, fake, there, {"image": ~there["image"]})

    def critic(weights: Params, params: Params) -> Array:
        key = jax.random.key(0)  # exact slopes draw nothing
        return game.critics_loss(model, weights, {}, jax.lax.stop_gradient(play(params)), key, jnp.int32(0))[0]

    def generator(weights: Params, params: Params) -> Array:
        return game.generator_loss(model, params["critic"], play({**params, "generator": weights}))[0]

    @jax.jit
    def losses(params: Params) -> tuple[Array, Array]:
        first, d = jax.value_and_grad(critic)(params["critic"], params)
        second, g = jax.value_and_grad(generator)(params["generator"], params)
        return first + second, optax.tree.norm((d, g))

    data = Batch({"image": x}, {"image": np.ones(len(x), bool)})
    inputs = {"x": channels_first(real["image"]), "code": np.concatenate([own[""], own["image"]], axis=1)}
    run = Ours(model, params, data, 1e-3, batch_size).run
    return Case("r3gan", params, losses, run, inputs, {"gamma": gamma})


CASES = {f.__name__: f for f in (mlp_vae, conv_vae, mopoe, dit_s, dit_s_bfloat16, dit_b, r3gan, euler_50)}


def value_and_norm(loss: Callable[[Params], Array]) -> Losses:
    @jax.jit
    def losses(params: Params) -> tuple[Array, Array]:
        value, grads = jax.value_and_grad(loss)(params)
        return value, optax.tree.norm(grads)

    return losses


def channels_first(x: Any) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))


def named(params: Params) -> Arrays:
    """Parameters by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(entry.key) for entry in path): np.asarray(x) for path, x in leaves}


def check_same(case: Case, theirs: Peer) -> dict[str, float]:
    """Parameters, and how far both are apart; AssertionError if that is more than `TOLERANCE`."""
    np.savez(theirs.folder / "weights.npz", **named(case.params))
    answer = theirs.send("case", case.data, "data", name=case.kind, weights=str(theirs.folder / "weights.npz"),
                         settings=case.settings, dtype=case.dtype)  # fmt: skip
    other = theirs.ask("loss")
    value, norm = (float(x) for x in case.losses(case.params))
    off = max(abs(value / other["loss"] - 1), abs(norm / other["grad_norm"] - 1))
    assert off < TOLERANCE[case.dtype], f"{case.kind}: ours are {value} and {norm}, theirs {other}"
    return {"parameters": answer["parameters"], "relative_difference": off}


def measured(case: Case, theirs: Peer, options: argparse.Namespace) -> dict[str, Any]:
    """Every form of PyTorch that is asked for, each in turn with ours."""
    row: dict[str, Any] = check_same(case, theirs)
    row["ours_first_s"], _ = timed(case.run, 2)
    forms = {"eager": (False, False), "compiled": (True, False)}
    if options.channels_last and case.kind in ("conv_vae", "mopoe", "r3gan"):
        forms["channels_last"] = (False, True)
    pairs = {}
    for form, (compiled, last) in forms.items():
        row[f"{form}_first_s"] = theirs.ask("form", compiled=compiled, channels_last=last)["first"]
        sides = {form: lambda steps: theirs.ask("time", steps=steps), "ours": case.run}
        pairs[form] = alternating(sides, options.seconds, options.rounds)
        row[f"{form}_ms"] = spread(pairs[form][f"{form}_ms"])
    row["ours_ms"] = spread(x for pair in pairs.values() for x in pair["ours_ms"])
    row["times_faster"] = min(compared(pair, form)["times_faster"] for form, pair in pairs.items())
    return row


def main(args: Sequence[str] | None = None) -> None:
    flags = parser("versus_torch", __doc__)
    flags.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    flags.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch")
    flags.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    flags.add_argument("--channels-last", action="store_true", help="also in that layout, for convolutions")
    flags.add_argument("--latent", type=int, default=16, help="side of DiT's latents; tokens are patches of 2")
    flags.add_argument("--dit-batch", type=int, default=16)
    flags.add_argument("--seconds", type=float, default=3.0, help="of a block")
    flags.add_argument("--rounds", type=int, default=5)
    options = parse(flags, args, only=["mlp_vae"], seconds=0.1, rounds=1)
    options.command = options.command.replace(options.torch_python, "PYTHON")  # no path of this machine
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    worker, rows = Path(__file__).with_name("torch_worker.py"), {}
    with peer(options.torch_python, "-W", "ignore", str(worker), str(options.threads), device) as theirs:
        options.torch = theirs.ask("versions")["torch"]
        del options.torch_python
        for name in options.only:
            print(name, file=sys.stderr, flush=True)
            rows[name] = measured(CASES[name](options), theirs, options)
            jax.clear_caches()
            write("versus_torch", options, rows)  # after each, so that a run that is cut off leaves what it has


if __name__ == "__main__":
    main()
