"""The VAE as a model: masks over every kind of modality, sampling, its own fields, and what it refuses."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.modalities import Image, Label, Normal, Text, Vector
from mmgen_jax.types import Batch, TrainState
from mmgen_jax.vae import (
    ELBO,
    JNF,
    MMVAE,
    MVTCAE,
    TELBO,
    VAE,
    GaussianMixturePrior,
    JointEncoder,
    MMVAEPlus,
    Nexus,
    ProductOfExperts,
    Ramp,
    SumPooling,
    equal_dimensions,
)
from mmgen_jax.vae.latent import Noise

EVERYTHING = {
    "image": Image(5, 4, 2, features=2),
    "text": Text(6, features=8),
    "label": Label(3, features=8),
    "vector": Vector(3, features=8),
}
SMALL = {name: EVERYTHING[name] for name in ("label", "vector")}
STEP = np.zeros((), np.int32)


def vae(objective=None, modalities=None, **fields) -> VAE:
    return VAE(modalities=modalities or SMALL, latent=5, objective=objective or MVTCAE(), **fields)


@functools.cache
def fresh(model: VAE):
    return jax.jit(model.init)(jax.random.key(0))[0]


def losses(model, params, batch, key_or_noise, step=STEP):
    """The loss of every example, compiled: op by op takes ten times as long."""
    return jax.jit(lambda *args: model.loss(*args)[0])(params, batch.masked(), key_or_noise, step)


def expand(there, x):
    return there.reshape(there.shape + (1,) * (x.ndim - 1))


@pytest.mark.parametrize(
    "objective", [MVTCAE(), MVTCAE(fusion=JointEncoder(features=8))], ids=["experts", "joint encoder"]
)
def test_what_is_missing_changes_nothing_to_the_bit_in_any_modality(objective):
    model = vae(objective, EVERYTHING, private={"vector": 2})
    params = fresh(model)
    batch = random_batch(EVERYTHING, present=0.5)
    batch.present["vector"][:] = [True, False, False, True]
    other = random_batch(EVERYTHING, seed=9)
    hidden = Batch(
        {m: np.where(expand(batch.present[m], x), x, other.values[m]) for m, x in batch.values.items()}, batch.present
    )
    hidden.values["vector"][1:3] = np.nan

    @jax.jit
    def grads(batch):
        return jax.value_and_grad(lambda p: model.loss(p, batch.masked(), jax.random.key(1), STEP)[0].mean())(params)

    jax.tree.map(np.testing.assert_array_equal, grads(batch), grads(hidden))
    assert bool(jnp.isfinite(grads(hidden)[0]))


@pytest.mark.parametrize("change", [{"weights": {"label": 5.0}}, {"private": {"vector": 3}}, {"latent": 4}], ids=str)
def test_every_field_of_the_model_changes_the_loss(change):
    base = vae(private={"vector": 2})
    changed = dataclasses.replace(base, **change)
    params = fresh(base) if "weights" in change else fresh(changed)
    before = losses(base, fresh(base), random_batch(SMALL), jax.random.key(1))
    assert float(jnp.abs(before - losses(changed, params, random_batch(SMALL), jax.random.key(1))).min()) > 1e-4


def test_weights_may_follow_the_step():
    model, params, batch = vae(weights={"label": Ramp(0.5, 2.0, 10)}), fresh(vae()), random_batch(SMALL)
    for step, weight in ((0, 0.5), (5, 1.25), (30, 2.0)):
        fixed = vae(weights={"label": weight})
        ours, expected = (losses(m, params, batch, jax.random.key(1), np.int32(step)) for m in (model, fixed))
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_without_a_shared_code_it_is_an_autoencoder_of_each_modality_by_itself():
    objective = ELBO(fusion=ProductOfExperts(), beta_private=1.0)
    model = VAE(modalities=SMALL, latent=0, private={"label": 2, "vector": 3}, objective=objective)
    params, batch, rng = fresh(model), random_batch(SMALL), np.random.default_rng(1)
    noise = {name: rng.standard_normal((4, size)).astype(np.float32) for name, size in model.private.items()}
    choice = np.zeros((1, 4), np.float32)
    apart = []
    for name, size in model.private.items():
        one = VAE(modalities={name: SMALL[name]}, latent=size, objective=objective)
        own = {group: {name: params[group][name]} for group in ("encoders", "decoders")}
        variables = {"params": {**own, "fusion": {}, "objective": {}}}
        apart.append(losses(one, variables["params"], batch.only((name,)), Noise(noise[name], {}, choice)))
        codes = (m.to_code(v, name, batch.values[name]) for m, v in ((model, {"params": params}), (one, variables)))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), *codes)
    together = losses(model, params, batch, Noise(np.zeros((4, 0), np.float32), noise, choice))
    np.testing.assert_allclose(together, sum(apart), rtol=1e-6)


def test_weights_that_make_up_for_size():
    assert equal_dimensions(EVERYTHING) == {"image": 1.0, "text": 40 / 6, "label": 40.0, "vector": 40 / 3}


@pytest.mark.parametrize("objective", [TELBO(first_stage=3), JNF(first_stage=3)], ids=["TELBO", "JNF"])
def test_the_second_stage_moves_nothing_of_the_first(objective):
    model = vae(dataclasses.replace(objective, fusion=JointEncoder(features=8)))
    tx = optax.adamw(1e-2)
    state = TrainState.create(model, tx, jax.random.key(0))
    step = jax.jit(functools.partial(model.step, tx))
    before = []
    for i in range(5):
        before.append(state.params)
        state, metrics = step(state, random_batch(SMALL), jax.random.key(i))
        assert np.isfinite(metrics["loss"])

    def moved(group, first, second):
        pairs = zip(jax.tree.leaves(first[group]), jax.tree.leaves(second[group]), strict=True)
        return any(not np.array_equal(a, b) for a, b in pairs)

    assert all(moved(group, before[2], before[3]) for group in ("fusion", "decoders"))  # with momentum to go on
    assert not any(moved(group, before[3], state.params) for group in ("fusion", "decoders"))
    assert moved("encoders", before[3], state.params)


def test_given_modalities_move_what_is_made():
    model = vae(modalities={"vector": Vector(3), "other": Vector(2)})
    variables, key = {"params": fresh(model)}, jax.random.key(1)
    one, two = (model.sample(variables, key, 2, given={"vector": jnp.full(3, x)})["other"] for x in (0.0, 5.0))
    assert float(jnp.abs(one - two).min()) > 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": {"smell": np.zeros(3)}}, r"'smell' is no modality of this model, which has \['label', 'vector'\]"),
        ({"targets": ("smell",)}, "'smell' is no modality"),
        (
            {"given": random_batch(SMALL)},
            r"given is a batch of \d+ with \['label', 'vector'\], but must have .* and 2 examples",
        ),
        ({"given": {"vector": np.zeros(4)}}, r"given\['vector'\] has shape \(4,\), but must have \(3,\) or \(2, 3\)"),
    ],
)
def test_sampling_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        vae().sample({"params": {}}, jax.random.key(0), 2, **arguments)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities": {}}, "modalities is empty"),
        ({"latent": 0}, "latent is 0, but must be at least 1"),
        ({"latent": 0, "private": {"label": 2}}, "or 0 if every modality has a private code"),
        (
            dict(modalities=SMALL, latent=0, private=dict(label=2, vector=2), objective=ELBO(fusion=SumPooling())),
            "and the fusion does not pool",
        ),
        ({"weights": {"smell": 1.0}}, "weights names 'smell', but the modalities are"),
        ({"private": {"label": -1}}, r"private\['label'\] is -1, but must be positive"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VAE(**{"modalities": EVERYTHING, **fields})


@pytest.mark.parametrize(
    ("objective", "private", "message"),
    [
        (MMVAE(), {"label": 2}, "MMVAE has no private codes; MMVAEPlus has"),
        (
            MMVAEPlus(),
            {"label": 2},
            r"private has no size for \['vector'\], but MMVAEPlus needs one for every modality",
        ),
        (MMVAEPlus(learn_prior=True), {"label": 2, "vector": 3}, "with learn_prior all sizes must be equal"),
        (TELBO(gammas={"smell": 1.0}), {}, "gammas names 'smell', but the modalities are"),
    ],
)
def test_an_objective_refuses_codes_that_it_cannot_do_with(objective, private, message):
    with pytest.raises(ValueError, match=message):
        vae(objective, private=private)


def test_bfloat16_computes_low_and_keeps_float32():
    model = vae(dtype="bfloat16")
    params = fresh(model)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    low, high = (losses(m, params, random_batch(SMALL), jax.random.key(1)) for m in (model, vae()))
    assert low.dtype == jnp.float32 and not np.array_equal(low, high)
    np.testing.assert_allclose(low, high, rtol=0.05)


def test_models_whose_modalities_stand_in_another_order_are_not_equal():
    assert vae() == vae() and hash(vae()) == hash(vae())
    assert vae() != vae(modalities=dict(reversed(SMALL.items())))


def test_a_prior_fitted_to_the_codes_makes_what_the_data_have():
    """Codes of the data lie at +-3, which N(0, I) hardly ever draws; a mixture of two finds them."""

    class Same(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * self.param("one", nn.initializers.ones, (1, 1))

    # The experts say exactly what they see: means are the values, variances next to nothing.
    head = {"kernel": jnp.concatenate([jnp.eye(2), jnp.zeros((2, 2))], 1), "bias": jnp.array([0, 0, -12.0, -12.0])}
    model = VAE(
        modalities={m: Vector(2, encoder=Same(), decoder=Same()) for m in "ab"}, latent=1, private={"a": 1, "b": 1}
    )
    params = {**fresh(model), "encoders": {m: {"encoder": {"one": jnp.ones((1, 1))}, "Dense_0": head} for m in "ab"}}
    signs = np.where(np.random.default_rng(0).random((1100, 1)) < 0.5, -3, 3)
    noise = 0.1 * np.random.default_rng(1).normal(size=(2, 1100, 2))
    values = {m: (signs + noise[i]).astype(np.float32) for i, m in enumerate("ab")}
    data = Batch(values, {m: np.ones(1100, bool) for m in "ab"})
    fitted = model.fit_prior({"params": params}, data, GaussianMixturePrior(components=2), jax.random.key(0))
    assert fitted.sample(jax.random.key(1), 7).shape == (7, 3)
    made = model.sample({"params": params}, jax.random.key(1), 500, prior=fitted)
    whole = np.concatenate([made["a"], made["b"]], axis=1)
    assert np.abs(np.abs(whole) - 3).max() < 0.6 and (np.sign(whole) == np.sign(whole[:, :1])).all()
    assert 0.3 < (whole[:, 0] > 0).mean() < 0.7
    plain = model.sample({"params": params}, jax.random.key(1), 500)
    assert (np.abs(plain["a"]) < 2).mean() > 0.8
    # Where something is given, the posterior speaks and not the prior.
    given = {"a": np.full((4, 2), 1.5, np.float32)}
    answers = model.sample({"params": params}, jax.random.key(1), 4, given=given, prior=fitted)["b"]
    np.testing.assert_allclose(answers[:, 0], 1.5, atol=0.1)
    # All codes may be had, or their means.
    codes = model.codes(params, data.take(slice(0, 3)), None)
    np.testing.assert_allclose(codes["b"], values["b"][:3, 1:], atol=1e-3)


def test_codes_lead_back():
    model, batch = vae(private={"vector": 2}), random_batch(SMALL, present=0.6)
    params, key = fresh(model), jax.random.key(1)
    codes = model.codes(params, batch.masked(), None)
    assert {name: code.shape for name, code in codes.items()} == {"": (4, 5), "vector": (4, 2)}
    back = model.decode(params, codes, ("vector", "label"))
    same = model.reconstruct({"params": params}, batch, key)
    np.testing.assert_allclose(back["vector"], same["vector"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(back["label"], same["label"])
    moved = model.decode(params, codes | {"vector": codes["vector"] + 1}, tuple(SMALL))
    np.testing.assert_array_equal(moved["label"], back["label"])
    assert float(jnp.abs(moved["vector"] - back["vector"]).min()) > 1e-4
    assert list(model.decode(params, codes, ("label",))) == ["label"]


def test_a_model_without_codes_says_so():
    nexus = Nexus(modalities=SMALL, latent=2, message=2, features=4)
    params = jax.jit(nexus.init)(jax.random.key(0))[0]
    model = vae()
    data_ = random_batch(SMALL, n=8)
    prior = model.fit_prior({"params": fresh(model)}, data_, GaussianMixturePrior(components=1), jax.random.key(0))
    with pytest.raises(ValueError, match="Nexus has no codes that a prior could be fitted to"):
        nexus.sample({"params": params}, jax.random.key(0), 2, prior=prior)


def test_the_predictive_probability_is_of_what_is_sampled():
    """Of a label and a scale, against many samples; nothing of what is asked for is seen."""
    parts = {"x": Vector(2, likelihood=Normal(1.0), features=4), "l": Label(3)}
    model = VAE(modalities=parts, latent=2, private={"l": 1})
    params = jax.tree.map(lambda p: 3 * p, model.init(jax.random.key(0))[0])
    batch = Batch({"x": np.ones((3, 2), np.float32), "l": np.arange(3)}, {n: np.ones(3, bool) for n in parts})
    value = model.log_predictive({"params": params}, batch, jax.random.key(1), "l", draws=2_000)
    np.testing.assert_allclose(jnp.exp(value).sum(), 1, rtol=0.05)  # the same is given with each of the three labels
    given = Batch(batch.values, {"x": np.ones(3, bool), "l": np.zeros(3, bool)})
    logits = []
    for key in jax.random.split(jax.random.key(2), 500):
        codes = model.codes(params, given.masked(), key)
        code = jnp.concatenate([codes[""], codes["l"]], axis=-1)
        logits.append(parts["l"].log_prob(model.decoder(params, "l"), code, batch.values["l"]))
    np.testing.assert_allclose(jnp.exp(value), jnp.exp(jnp.stack(logits)).mean(0), atol=0.05)
    lacking = Batch(batch.values, {"x": np.ones(3, bool), "l": np.arange(3) > 0})
    assert model.log_predictive({"params": params}, lacking, jax.random.key(1), "l")[0] == 0
    with pytest.raises(ValueError, match="'y'"):
        model.log_predictive({"params": params}, batch, jax.random.key(1), "y")
