"""Latent diffusion: codes in, examples out, whatever the first stage; and a run that is whole without it."""

import dataclasses
import functools
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

import mmgen_jax as mm
from mmgen_jax import vae
from mmgen_jax.diffusion import Flow
from mmgen_jax.gan import DCGAN, GAN, LeCam
from mmgen_jax.latent import Latent, Moments
from mmgen_jax.modalities import Image, Label, Vector
from mmgen_jax.run import load_variables
from mmgen_jax.train.mesh import Mesh
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.train.stages import prepared
from mmgen_jax.types import Batch, TrainState

PUBLIC = {"image": Image(6, 4, 1, features=2), "label": Label(3)}
CODER = vae.VAE(modalities={"image": PUBLIC["image"]}, latent=12, objective=vae.ELBO())
SMALL = {"width": 16, "joint": 0, "depth": 1, "heads": 2, "steps": 2}
GRID = Image(3, 2, 2, patch=1)
MODEL = Latent(second=Flow(modalities={"image": GRID, "label": PUBLIC["label"]}, **SMALL), first={"image": CODER})
KEY = jax.random.key(0)


@functools.cache
def coder():
    """The variables of the first stage."""
    return {"params": jax.jit(CODER.init)(jax.random.key(7))[0]}


@functools.cache
def begun():
    """A state with the first stage's variables, and the scale of its codes on 150 examples of which some have none."""
    state = jax.jit(lambda key: TrainState.create(MODEL, optax.sgd(0.1), key))(KEY)
    return state.replace(stats=MODEL.begin(state.stats, {"image": coder()}, random_batch(PUBLIC, 150, present=0.7)))


def test_it_has_the_modalities_of_its_first_stages():
    assert MODEL.modalities == PUBLIC and MODEL.makes == ("image", "label")
    jax.tree.map(np.testing.assert_array_equal, begun().stats["first"]["image"], coder())


def test_what_becomes_a_code_and_back_is_what_the_first_stage_makes_of_it():
    stats, batch = begun().stats, random_batch(PUBLIC, 5)
    q = MODEL.prepare(stats, batch).values["image"]
    assert q.mean.shape == q.deviation.shape == (5, 3, 2, 2)
    made = MODEL.decoded(stats, {**MODEL.second.restored({"image": q.mean}), "label": batch.values["label"]})
    expected = CODER.reconstruct(coder(), batch.only(["image"]), KEY)["image"]
    np.testing.assert_allclose(made["image"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made["label"], batch.values["label"])


def test_codes_of_the_training_set_are_standard_in_every_channel():
    """As the network sees them, and where there is an image at all."""
    batch = random_batch(PUBLIC, 150, present=0.7)
    drawn = MODEL.drawn(MODEL.prepare(begun().stats, batch), KEY)
    z = MODEL.second.standardised(drawn.values)["image"][batch.present["image"]].reshape(-1, 2)
    np.testing.assert_allclose(z.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(z.std(0), 1, atol=0.1)
    mean, deviation = CODER.to_code(coder(), "image", batch.values["image"][batch.present["image"]])
    channels, apart = begun().stats["channels"]["image"], mean.reshape(-1, 2)
    np.testing.assert_allclose(channels.mean, apart.mean(0), atol=1e-5)
    expected = apart.var(0) + np.square(deviation).reshape(-1, 2).mean(0)
    np.testing.assert_allclose(np.square(channels.deviation), expected, rtol=1e-4)


def test_prepared_ahead_equals_prepared_in_the_step():
    state, split = begun(), random_batch(PUBLIC, 10, present=0.7)
    ahead, rows = prepared(MODEL, state.stats, split), np.array([7, 2, 9])
    assert isinstance(ahead.values["image"], Moments) and isinstance(ahead.values["image"].mean, np.ndarray)
    now = MODEL.prepare(state.stats, split.take(rows))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), ahead.take(rows), now)
    step = jax.jit(functools.partial(MODEL.step, optax.sgd(0.1)))
    results = [step(state, batch.take(rows), KEY) for batch in (ahead, split)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *results)
    jax.tree.map(np.testing.assert_array_equal, results[0][0].stats, state.stats)  # what is trained already stays


def test_what_is_given_comes_back_unchanged_and_shapes_the_rest():
    """The label follows the given picture: it is other than that of another one, with the same key."""
    model = dataclasses.replace(
        MODEL, second=dataclasses.replace(MODEL.second, modalities={"image": GRID, "y": Vector(2)})
    )
    params, stats = jax.jit(model.init)(KEY)
    shaken = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params)
    images = random_batch(PUBLIC, 2).values["image"]
    made = [model.sample({"params": shaken, **stats}, KEY, 1, given={"image": image}) for image in images]
    for image, one in zip(images, made, strict=True):
        np.testing.assert_array_equal(one["image"], image[None])
    assert np.abs(made[0]["y"] - made[1]["y"]).max() > 1e-4


class Mix(nn.Module):
    """A linear map to `outputs` numbers, the encoder or decoder of the smallest first stage there is."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(x)


PAIR = {"x": Vector(2, encoder=Mix(2), decoder=Mix(2)), "y": Vector(1)}
LINEAR = vae.VAE(modalities={"x": PAIR["x"]}, latent=2, objective=vae.ELBO())
TURN, SHIFT = np.array([[2.0, 1.0], [-1.0, 3.0]]), np.array([5.0, -4.0])
NOISE, STEPS = 0.1, 600


def linear():
    """Variables with which the code of x is x TURN + SHIFT, with a deviation of NOISE, and is decoded exactly."""
    back = np.linalg.inv(TURN)
    head = {"kernel": np.eye(2, 4), "bias": np.array([0, 0, *[2 * np.log(NOISE)] * 2])}
    encoder = {"encoder": {"Dense_0": {"kernel": TURN, "bias": SHIFT}}, "Dense_0": head}
    decoder = {"Dense_0": {"kernel": back, "bias": -SHIFT @ back}}
    params, _ = jax.jit(LINEAR.init)(KEY)
    params = params | {"encoders": {"x": encoder}, "decoders": {"x": decoder}}
    return {"params": jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)}


@pytest.mark.slow
def test_gaussians_are_recovered_through_a_linear_first_stage():
    """x = (y + e, y - e) / sqrt(2) with e of deviation 1/2: E[x | y] = y / sqrt(2), and E[y | x] is linear in x."""
    rng, n = np.random.default_rng(0), 20_000
    y, e = rng.normal(size=(n, 1)), 0.5 * rng.normal(size=(n, 1))
    x = np.concatenate([y + e, y - e], axis=1) / np.sqrt(2)
    data = Batch({"x": x.astype(np.float32), "y": y.astype(np.float32)}, dict.fromkeys(PAIR, np.ones(n, bool)))
    flow = Flow(modalities={"x": Vector(2), "y": Vector(1)}, width=32, joint=0, depth=1, heads=2, steps=8)
    model, tx = Latent(second=flow, first={"x": LINEAR}), optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(KEY)
    state = state.replace(stats=model.begin(state.stats, {"x": linear()}, data.take(slice(0, 2000))))
    codes = jax.tree.map(jnp.asarray, model.prepare(state.stats, data))

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(state):
        def one(state, i):
            rows = jax.random.randint(jax.random.fold_in(jax.random.key(2), i), (128,), 0, n)
            return model.step(tx, state, codes.take(rows), jax.random.fold_in(jax.random.key(1), i))[0], None

        return jax.lax.scan(one, state, jnp.arange(STEPS))[0]

    variables, k = steps(state).variables, 1000
    values = np.repeat(np.array([-1.0, 1.5], np.float32), k)[:, None]
    made = model.sample(variables, KEY, 2 * k, given={"y": values})["x"].reshape(2, k, 2)
    for value, x_given_y in zip((-1.0, 1.5), made, strict=True):
        np.testing.assert_allclose(x_given_y.mean(0), value / np.sqrt(2), atol=0.1)
        np.testing.assert_allclose(np.var(x_given_y[:, 0] - x_given_y[:, 1]), 0.5, atol=0.1)
    given = np.concatenate([values, 0 * values], axis=1)
    made = model.sample(variables, KEY, 2 * k, given={"x": given})["y"].reshape(2, k)
    np.testing.assert_allclose(made.mean(1), np.array([-1.0, 1.5]) / np.sqrt(2), atol=0.1)  # y = (x_1 + x_2) / sqrt(2)


def test_a_game_is_played_for_codes_and_keeps_its_own_statistics():
    """One step moves both players and the game's running means, and nothing of the first stage or its scale."""
    modalities = {name: Vector(size, features=4) for name, size in (("x", 2), ("y", 1))}
    game = GAN(modalities=modalities, noise=2, own=1, width=4, networks=DCGAN(), lecam=LeCam())
    model, tx = Latent(second=game, first={"x": LINEAR}), optax.sgd(0.1)
    data = random_batch(PAIR, 8)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(KEY)
    state = state.replace(stats=model.begin(state.stats, {"x": linear()}, data))
    new, metrics = jax.jit(functools.partial(model.step, tx))(state, data, KEY)
    assert np.isfinite(metrics["loss"]) and new.stats.keys() == {"lecam", "first", "channels"}
    kept = [{name: s.stats[name] for name in ("first", "channels")} for s in (state, new)]
    jax.tree.map(np.testing.assert_array_equal, *kept)
    for before, after in ((state.params, new.params), (state.stats["lecam"], new.stats["lecam"])):
        for player in before:
            pairs = zip(jax.tree.leaves(before[player]), jax.tree.leaves(after[player]), strict=True)
            assert any(not np.array_equal(a, b) for a, b in pairs), player
    codes = game.sample(new.variables, KEY, 3)["x"]
    made = model.sample(new.variables, KEY, 3, targets=("x",))["x"]
    channels = jax.device_get(new.stats["channels"]["x"])
    expected = (np.asarray(codes) * channels.deviation + channels.mean - SHIFT) @ np.linalg.inv(TURN)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a run of the first stage, an experiment that builds on it)."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    columns = {"image": [*rng.random((16, 6, 4, 1), np.float32)], "label": [int(i) for i in rng.integers(3, size=16)]}
    plan = dict(data=mm.data.Arrays(columns), batch_size=8, steps_per_call=2, save_every=2, mesh=Mesh(data=1))
    first = mm.Experiment(model=CODER, steps=2, optimizer=Optimizer(ema=0.9), **plan)
    state = mm.fit(first, folder / "first")
    return state, mm.Experiment(model=MODEL, steps=4, first={"image": str(folder / "first")}, **plan)


def test_a_run_resumes_and_samples_without_the_run_it_was_built_on(runs, tmp_path):
    trained, experiment = runs
    whole = mm.fit(experiment, tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, whole.stats["first"]["image"], dict(trained.variables))
    copy = shutil.copytree(experiment.first["image"], tmp_path / "first")
    moved = dataclasses.replace(experiment, first={"image": str(copy)})
    mm.fit(dataclasses.replace(moved, steps=2), tmp_path / "run")
    shutil.rmtree(copy)
    (tmp_path / "run" / "config.json").write_text(mm.config.to_json(moved))  # of two steps more
    resumed = mm.fit(moved, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    made = MODEL.sample(load_variables(tmp_path / "run", MODEL), KEY, 2, given={"label": np.int32(1)})
    assert made["image"].shape == (2, 6, 4, 1) and np.isfinite(made["image"]).all()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"first": {}}, "first is empty, but at least one modality must become a code"),
        ({"first": {"sound": CODER}}, r"first names 'sound', but the modalities of second are \['image', 'label'\]"),
        ({"first": {"label": CODER}}, r"'label', but the modalities of first\['label'\] are \['image'\]"),
        ({"first": {"image": MODEL}}, r"first\['image'\] is a Latent, which has no code of a modality alone"),
        (
            {"first": {"image": dataclasses.replace(CODER, latent=11)}},
            r"'image' has a code of 11 numbers, but second.modalities\['image'\] is Image.* must have 11 real values",
        ),
    ],
)
def test_what_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(MODEL, **fields)


def test_symbols_are_no_code():
    symbols = Flow(modalities={"image": mm.Text(12)}, **SMALL)
    with pytest.raises(ValueError, match="must have 12 real values"):
        Latent(second=symbols, first={"image": CODER})


def test_codes_without_a_scale_are_refused():
    nothing = random_batch(PUBLIC, 4, present=0.0)
    with pytest.raises(ValueError, match="'image' is in none of 4 training examples"):
        MODEL.begin(begun().stats, {"image": coder()}, nothing)
