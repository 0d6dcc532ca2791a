"""Properties that the models with a hierarchy of codes share: masks, order, batches, sampling, fields, learning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import Hidden, random_batch

from mmgen_jax.modalities import Audio, Image, Label, Text, Vector, Video
from mmgen_jax.types import Batch, TrainState
from mmgen_jax.vae import mhvae, nexus
from mmgen_jax.vae.fusion import subsets_of
from mmgen_jax.vae.mhvae import MHVAE
from mmgen_jax.vae.nexus import Nexus
from mmgen_jax.vae.schedules import Ramp

SMALL = {"label": Label(3, features=8), "vector": Vector(3, features=8), "other": Vector(2, features=8)}
EVERYTHING = {
    **SMALL,
    "image": Image(5, 4, 2, features=2),
    "text": Text(6, features=8),
    "audio": Audio(64, rate=64, features=2),
    "video": Video(2, 4, 4, 1, features=2),
}
NEXUS = Nexus(modalities=SMALL, latent=4, private={"vector": 2}, message=3, features=6)
MODELS = {
    "nexus": NEXUS,
    "nexus-adapted": dataclasses.replace(NEXUS, adapt=("vector",)),
    "mhvae": MHVAE(modalities=SMALL, levels=(4, 3, 2), features=6),
    "mhvae-shared": MHVAE(modalities=SMALL, levels=(4, 3), features=6, shared_posterior=True),
}
BOTH = ("nexus", "mhvae")  # enough where every kind of modality is compiled, which takes long
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
STEP = np.zeros((), np.int32)


@functools.cache
def fresh(model):
    return jax.jit(model.init)(jax.random.key(0))[0]


def losses(model, params, batch, noise):
    # No static model: those that differ in nothing but the order of modalities are equal, and would share a program.
    return jax.jit(lambda *args: model.loss(*args, STEP)[0])(params, batch.masked(), noise)


def noise_for(model, n=4, seed=1):
    """The random numbers of a loss."""
    rng = np.random.default_rng(seed)
    names = tuple(model.modalities)
    if isinstance(model, MHVAE):
        sets = len(subsets_of(names))
        return mhvae.Noise(tuple(rng.normal(size=(sets, n, d)).astype(np.float32) for d in model.levels))
    sizes = {name: model.private.get(name, model.latent) for name in sorted(names)}
    bottom = {name: rng.normal(size=(n, d)).astype(np.float32) for name, d in sizes.items()}
    z, drop = rng.normal(size=(n, model.latent)), rng.random((len(names), n))
    return nexus.Noise(z.astype(np.float32), bottom, drop.astype(np.float32))


@each_model
def test_what_is_missing_changes_nothing_to_the_bit(model):
    model = dataclasses.replace(model, modalities={**SMALL, "text": EVERYTHING["text"]})
    params, batch = fresh(model), random_batch(model.modalities, present=0.5)
    batch.present["vector"][:] = [True, False, False, True]
    other = random_batch(model.modalities, seed=9)

    def hide(name, x):
        there = batch.present[name]
        return np.where(there.reshape(there.shape + (1,) * (x.ndim - 1)), x, other.values[name])

    hidden = Batch({name: hide(name, x) for name, x in batch.values.items()}, batch.present)
    hidden.values["vector"][1:3] = np.nan

    @jax.jit
    def grads(batch):
        return jax.value_and_grad(lambda p: model.loss(p, batch.masked(), jax.random.key(1), STEP)[0].mean())(params)

    jax.tree.map(np.testing.assert_array_equal, grads(batch), grads(hidden))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(grads(hidden)))


@each_model
def test_where_nothing_is_present_there_is_nothing_to_learn(model):
    batch = random_batch(SMALL, present=0.0)
    loss, grads = jax.jit(jax.value_and_grad(lambda p: losses(model, p, batch, noise_for(model)).mean()))(fresh(model))
    np.testing.assert_allclose(loss, 0, atol=1e-5)
    jax.tree.map(lambda g: np.testing.assert_allclose(g, 0, atol=1e-5), grads)


@each_model
def test_the_order_of_modalities_does_not_matter(model):
    batch, noise = random_batch(SMALL, present=0.7), noise_for(model)
    turned = dataclasses.replace(model, modalities=dict(reversed(SMALL.items())))
    if isinstance(model, MHVAE):
        sets = [frozenset(s) for s in subsets_of(tuple(SMALL))]
        places = np.array([sets.index(frozenset(s)) for s in subsets_of(tuple(turned.modalities))])
        moved = mhvae.Noise(tuple(z[places] for z in noise.z))
    else:
        moved = noise.replace(drop=noise.drop[::-1])
    expected = losses(model, fresh(model), batch, noise)
    np.testing.assert_allclose(losses(turned, fresh(model), batch, moved), expected, rtol=2e-5)


@pytest.mark.parametrize("name", [name for name in MODELS if "adapted" not in name])
def test_the_loss_of_a_batch_is_that_of_its_examples_one_by_one(name):
    model = MODELS[name]
    batch, noise = random_batch(SMALL, present=0.7), noise_for(model)
    whole = losses(model, fresh(model), batch, noise)
    for i in range(4):
        at = slice(i, i + 1)
        if isinstance(model, MHVAE):
            alone = mhvae.Noise(tuple(z[:, at] for z in noise.z))
        else:
            alone = nexus.Noise(noise.z[at], {m: z[at] for m, z in noise.bottom.items()}, noise.drop[:, at])
        np.testing.assert_allclose(losses(model, fresh(model), batch.take(at), alone)[0], whole[i], rtol=2e-5)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("nexus", {"latent": 5}),
        ("nexus", {"private": {"vector": 3}}),
        ("nexus", {"message": 4}),
        ("nexus", {"features": 7}),
        ("nexus", {"block": Hidden(6)}),
        ("nexus", {"betas": {"label": 2.0}}),
        ("nexus", {"betas": {"label": Ramp(0.0, 1.0, 10)}}),
        ("nexus", {"top_beta": 2.0}),
        ("nexus", {"gammas": {"label": 2.0}}),
        ("nexus", {"dropout": 0.0}),
        ("nexus", {"adapt": ("other",)}),
        ("nexus", {"weights": {"label": 5.0}}),
        ("mhvae", {"levels": (4, 3)}),
        ("mhvae", {"levels": (4, 3, 3)}),
        ("mhvae", {"beta": 2.0}),
        ("mhvae", {"beta": Ramp(0.0, 1.0, 10)}),
        ("mhvae", {"shared_posterior": True}),
        ("mhvae", {"eps": 0.1}),
        ("mhvae", {"features": 7}),
        ("mhvae", {"block": Hidden(6)}),
        ("mhvae", {"weights": {"label": 5.0}}),
    ],
    ids=str,
)
def test_every_field_changes_the_loss(name, change):
    base = MODELS[name]
    changed = dataclasses.replace(base, **change)
    before = losses(base, fresh(base), random_batch(SMALL), noise_for(base))
    after = losses(changed, fresh(changed), random_batch(SMALL), noise_for(changed))
    assert float(jnp.abs(before - after).max()) > 1e-4


@pytest.mark.parametrize("name", BOTH)
def test_samples_have_their_modalities_shapes_and_dtypes_and_what_is_given_is_unchanged(name):
    model = dataclasses.replace(MODELS[name], modalities=EVERYTHING)
    variables = {"params": fresh(model)}
    given = {name: random_batch(EVERYTHING).values[name][:2] for name in ("image", "label")}
    for known in ({}, given):
        made = model.sample(variables, jax.random.key(1), 2, given=known)
        assert list(made) == list(EVERYTHING)
        for name, modality in EVERYTHING.items():
            assert made[name].shape == (2, *modality.shape) and made[name].dtype == modality.dtype
            assert np.isfinite(made[name]).all()
            if name in known:
                np.testing.assert_array_equal(made[name], known[name])
    again = model.reconstruct(variables, random_batch(EVERYTHING, present=0.5), jax.random.key(2))
    assert {name: x.shape for name, x in again.items()} == {n: (4, *m.shape) for n, m in EVERYTHING.items()}


@each_model
def test_what_is_given_moves_what_is_made_and_a_batch_of_parts_is_the_parts(model):
    variables, key = {"params": fresh(model)}, jax.random.key(1)
    one, two = (model.sample(variables, key, 4, given={"vector": np.full(3, x, np.float32)}) for x in (0.0, 5.0))
    assert np.abs(one["other"] - two["other"]).max() > 1e-4
    batch = random_batch(SMALL)
    batch.present["label"][:] = batch.present["other"][:] = False
    parts = model.sample(variables, key, 4, given=batch)
    alone = model.sample(variables, key, 4, given={"vector": batch.values["vector"]})
    jax.tree.map(np.testing.assert_array_equal, parts, alone)


@each_model
def test_a_small_model_learns(model):
    tx = optax.adam(1e-2)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(jax.random.key(0))
    step = jax.jit(functools.partial(model.step, tx))
    seen = []
    for i in range(50):
        state, metrics = step(state, random_batch(SMALL, n=64), jax.random.fold_in(jax.random.key(1), i))
        seen.append(float(metrics["loss"]))
    assert np.isfinite(seen).all() and np.mean(seen[-5:]) < 0.9 * np.mean(seen[:5])


@each_model
def test_bfloat16_computes_low_and_keeps_float32(model):
    low = dataclasses.replace(model, dtype="bfloat16")
    params, noise = fresh(low), noise_for(model)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    ours, exact = (losses(m, params, random_batch(SMALL), noise) for m in (low, model))
    assert ours.dtype == jnp.float32 and not np.array_equal(ours, exact)
    np.testing.assert_allclose(ours, exact, rtol=0.05)


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (Nexus, {"latent": 0}, "latent is 0, but must be a whole number of at least 1"),
        (Nexus, {"message": 1.5}, "message is 1.5, but must be a whole number of at least 1"),
        (Nexus, {"features": 0}, "features is 0, but must be a whole number"),
        (Nexus, {"private": {"smell": 2}}, r"private names 'smell', but the modalities are \['label', "),
        (Nexus, {"private": {"label": 1.5}}, r"private\['label'\] is 1.5, but must be a whole number"),
        (Nexus, {"betas": {"label": -1.0}}, r"betas\['label'\] is -1.0, but must be positive"),
        (Nexus, {"gammas": {"smell": 1.0}}, "gammas names 'smell', but the modalities are"),
        (Nexus, {"adapt": ("smell",)}, "adapt names 'smell', but the modalities are"),
        (Nexus, {"dropout": 1.5}, "dropout is 1.5, but must be between 0 and 1"),
        (Nexus, {"block": "relu"}, "block is 'relu', but must be an instance of a flax.linen module or None"),
        (MHVAE, {"levels": ()}, "levels is empty, but a hierarchy needs at least one"),
        (MHVAE, {"levels": (4, 0)}, r"levels\[1\] is 0, but must be a whole number of at least 1"),
        (MHVAE, {"features": 0}, "features is 0, but must be a whole number"),
        (MHVAE, {"eps": -1e-8}, "eps is -1e-08, but must not be negative"),
        (MHVAE, {"block": Hidden}, "but must be an instance of a flax.linen module or None"),
        (MHVAE, {"weights": {"smell": 1.0}}, "weights names 'smell', but the modalities are"),
    ],
)
def test_fields_that_make_no_sense_are_refused(model, fields, message):
    with pytest.raises(ValueError, match=message):
        model(modalities=SMALL, **fields)
