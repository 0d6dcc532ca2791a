"""What every model of every family promises. A new family adds its models to MODELS and nothing else."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from vae_cases import random_batch

from mmgen_jax import vae
from mmgen_jax.diffusion import Flow
from mmgen_jax.gan import DCGAN, GAN
from mmgen_jax.latent import Latent
from mmgen_jax.modalities import Image, Text, Vector
from mmgen_jax.tokens import FSQ, Tokenizer, Tokens
from mmgen_jax.types import Batch, TrainState

MODALITIES = {
    "image": Image(5, 4, 2, features=2),
    "text": Text(6, features=8),
    "vector": Vector(3, features=8),
}
REAL = {name: MODALITIES[name] for name in ("image", "vector")}
TOKENIZER = Tokenizer(modalities=REAL, cells={"image": (3, 2), "vector": (2,)}, quantizer=FSQ((5, 5)))
MODELS = {
    "mvtcae": vae.VAE(modalities=MODALITIES, latent=5, private={"image": 2}),
    "mopoe": vae.VAE(modalities=MODALITIES, latent=5, private={"image": 2}, objective=vae.MoPoE()),
    "jnf": vae.VAE(modalities=MODALITIES, latent=5, objective=vae.JNF(fusion=vae.JointEncoder(features=8), hidden=8)),
    "mmvae_plus": vae.VAE(
        modalities=MODALITIES, latent=5, private=dict.fromkeys(MODALITIES, 2), objective=vae.MMVAEPlus(samples=2)
    ),
    "nexus": vae.Nexus(modalities=MODALITIES, latent=5, message=4, features=8),
    "mhvae": vae.MHVAE(modalities=MODALITIES, levels=(4, 3), features=8),
    "flow": Flow(modalities=MODALITIES, width=16, joint=1, depth=1, heads=2, steps=2),
    "latent_flow": Latent(
        second=Flow(modalities=MODALITIES | {"vector": Vector(5)}, width=16, joint=0, depth=1, heads=2, steps=2),
        first={"vector": vae.VAE(modalities={"vector": MODALITIES["vector"]}, latent=5)},
    ),
    "gan": GAN(modalities=MODALITIES, noise=4, own=2, width=16, networks=DCGAN()),
    "tokens": Tokens(modalities=MODALITIES, first=dict.fromkeys(REAL, TOKENIZER), width=16, depth=1, heads=2),
}
TX = optax.sgd(1e-3)


@functools.cache
def start(name: str) -> TrainState:
    return jax.jit(lambda key: TrainState.create(MODELS[name], TX, key))(jax.random.key(0))


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


def test_init_is_deterministic_and_in_float32(name):
    again = jax.jit(lambda key: TrainState.create(MODELS[name], TX, key))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, start(name), again)
    assert {x.dtype for x in jax.tree.leaves(start(name).params)} == {np.dtype("float32")}


def test_fifty_steps_lower_the_loss_and_are_traced_once(name):
    model, tx, batch, traces = MODELS[name], optax.adam(3e-3), random_batch(MODALITIES, 64, present=0.8), []
    state = start(name).replace(opt=tx.init(start(name).params))

    @jax.jit
    def step(state, key):
        traces.append(1)
        return model.step(tx, state, batch, key)

    curve = []
    for i in range(50):
        state, metrics = step(state, jax.random.fold_in(jax.random.key(1), i))
        curve.append(float(metrics["loss"]))
    assert len(traces) == 1 and int(state.step) == 50 and np.isfinite(curve).all()
    if not isinstance(model, GAN):  # no loss of a game need fall: tests/test_gan_game.py shows that it learns
        assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 1


def test_values_that_are_not_present_change_nothing(name):
    batch = random_batch(MODALITIES, 4, present=0.5)
    other = random_batch(MODALITIES, 4).values

    def hide(m, x):
        there = batch.present[m].reshape(-1, *(1,) * (x.ndim - 1))
        return np.where(there, x, np.nan if x.dtype == np.float32 else other[m])

    step = jax.jit(functools.partial(MODELS[name].step, TX))
    hidden = Batch({m: hide(m, x) for m, x in batch.values.items()}, batch.present)
    results = [step(start(name), b, jax.random.key(1)) for b in (batch, hidden)]
    jax.tree.map(np.testing.assert_array_equal, *results)


def only_vector(model):
    """The same with one small modality: without jit every operation is compiled alone, and it has enough of them."""
    if isinstance(model, Latent):
        return dataclasses.replace(model, second=only_vector(model.second))
    by_name = [field for field in ("private", "first") if hasattr(model, field)]
    fields = {f: {n: part for n, part in getattr(model, f).items() if n == "vector"} for f in by_name}
    return dataclasses.replace(model, modalities={"vector": model.modalities["vector"]}, **fields)


def test_jit_equals_no_jit(name):
    model = only_vector(MODELS[name])
    state = jax.jit(lambda key: TrainState.create(model, TX, key))(jax.random.key(0))
    arguments = (state, random_batch(MODALITIES, 2), jax.random.key(1))
    step = functools.partial(model.step, TX)
    (_, plain), (_, compiled) = step(*arguments), jax.jit(step)(*arguments)
    for metric in plain:
        np.testing.assert_allclose(compiled[metric], plain[metric], rtol=1e-4, atol=1e-4)


def test_one_device_equals_eight(name):
    """Steps of plain gradient descent: what differs is the gradient."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    step = jax.jit(functools.partial(MODELS[name].step, TX))
    batch = random_batch(MODALITIES, 8)
    alone, _ = step(start(name), batch, jax.random.key(1))
    together, _ = step(jax.device_put(start(name), whole), jax.device_put(batch, rows), jax.random.key(1))
    for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(together.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@functools.cache
def sampler(name: str):
    """Compiled once for each number of examples and kind of `given`: quicker than one operation at a time."""
    return jax.jit(MODELS[name].sample, static_argnums=2, static_argnames="targets")


def test_sampling_makes_every_modality_and_returns_what_is_given(name):
    sample, variables, key = sampler(name), start(name).variables, jax.random.key(1)
    made = sample(variables, key, 3)
    for m, modality in MODALITIES.items():
        assert made[m].shape == (3, *modality.shape) and made[m].dtype == modality.dtype
    jax.tree.map(np.testing.assert_array_equal, made, sample(variables, key, 3))
    assert not np.array_equal(made["vector"], sample(variables, jax.random.key(2), 3)["vector"])

    image = np.full((5, 4, 2), 0.25, np.float32)
    some = sample(variables, key, 1, given={"image": image}, targets=("vector",))
    assert sorted(some) == ["image", "vector"]
    np.testing.assert_array_equal(some["image"], image[None])


def test_each_example_of_a_batch_is_given_its_own_parts(name):
    sample, variables, key = sampler(name), start(name).variables, jax.random.key(1)
    rows, i = random_batch(MODALITIES, 3), jnp.arange(3)
    given = Batch(rows.values, {m: i <= 1 if m == "vector" else i == 0 for m in MODALITIES})
    made = sample(variables, key, 3, given=given)
    for m in MODALITIES:  # of the first example all is given, of the second the vector, of the third nothing
        np.testing.assert_array_equal(made[m][0], rows.values[m][0])
        assert made[m].shape == (3, *MODALITIES[m].shape)
    np.testing.assert_array_equal(made["vector"][1], rows.values["vector"][1])
    other = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), rows.values)  # what is not present says nothing
    again = sample(variables, key, 3, given=Batch(given.completed(other), given.present))
    jax.tree.map(np.testing.assert_array_equal, made, again)
    whole = Batch(rows.values, {m: jnp.full(3, m == "vector") for m in MODALITIES})
    one = sample(variables, key, 3, given={"vector": rows.values["vector"]})
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)  # two programs, which may round apart
    jax.tree.map(close, one, sample(variables, key, 3, given=whole))
