"""The conditional VAE: the reference's numbers, masks, what can be made of what, and the likelihood in closed form."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import Case, Output, assert_close, assert_gradients, decoder, heads, layer, of_models, random_batch

from mmgen_jax.modalities import Image, Label, Normal, Text, Vector
from mmgen_jax.types import Batch, TrainState
from mmgen_jax.vae.cvae import CVAE
from mmgen_jax.vae.likelihood import log_likelihood
from mmgen_jax.vae.schedules import Ramp

EVERYTHING = {
    "image": Image(5, 4, 2, features=2),
    "text": Text(5, features=8),
    "label": Label(3, features=8),
    "vector": Vector(3, features=8),
}
SMALL = {"label": EVERYTHING["label"], "pose": Vector(2, features=8), "vector": EVERYTHING["vector"]}
STEP = np.zeros((), np.int32)


class SideBySide(nn.Module):
    """A network of some modalities' values, one after the other; without a network the values themselves."""

    names: tuple[str, ...]
    network: nn.Module | None = None

    @nn.compact
    def __call__(self, values, present):
        x = jnp.concatenate([values[name] for name in self.names], axis=-1)
        return x if self.network is None else self.network(x)


def reference(case) -> CVAE:
    hp, two = case.hp, 2 * case.hp["latent_dim"]
    return CVAE(
        modalities=case.modalities(),
        target=hp["main"],
        latent=hp["latent_dim"],
        beta=hp["beta"],
        learn_prior=hp["prior_network"],
        encoder_network=SideBySide(tuple(case.names), Output(hp["hidden"], two)),
        condition_network=SideBySide(tuple(hp["cond"])),
        prior_network=Output(hp["hidden"], two) if hp["prior_network"] else None,
        dtype="float64",
    )


def params(case, flat) -> dict:
    def network(module):
        return {"hidden_layer": {"hidden": layer(flat, f"{module}.hidden")}, "out": heads(flat, module)}

    return {
        "encoder": {"network": network("encoder")},
        "condition": {},
        "prior": network("prior_network") if case.hp["prior_network"] else {},
        "decoders": {case.hp["main"]: decoder(flat, "decoder")},
    }


reads = of_models("CVAE")


@pytest.fixture
def case(golden_vae):
    with jax.enable_x64(True):
        yield Case(golden_vae)


def test_loss_and_gradients_of_the_reference(case):
    model, weights, batch = reference(case), params(case, case.unpack("w")), case.batch()

    def mean_loss(weights):
        return model.loss(weights, batch, jnp.asarray(case.noise()["z"]), STEP)[0].mean()

    loss, grads = jax.jit(jax.value_and_grad(mean_loss))(weights)
    assert_close(loss, case.expected_loss())
    jax.tree.map(assert_gradients, grads, params(case, case.expected_gradients()))


def test_terms_and_posteriors_of_the_reference(case):
    model, weights, batch = reference(case), params(case, case.unpack("w")), case.batch()
    terms = model.loss(weights, batch, jnp.asarray(case.noise()["z"]), STEP)[1]
    for name in ("nll", "kl"):
        assert_close(terms[name], case.file[f"term/{name}"])
    q, p, _ = model.encode(weights, batch)
    for name, code in {"joint": q, "prior": p}.items():
        if f"post/{name}/mu" in case.file:
            assert_close(code.mean, case.file[f"post/{name}/mu"])
            assert_close(code.log_var, case.file[f"post/{name}/logvar"])
    for subset, mean in zip(case.meta["cond_subsets"], case.file.get("cond/z", ()), strict=True):
        assert_close((q if case.hp["main"] in subset.split("_") else p).mean, mean)


def test_networks_of_the_reference_have_the_parameters_of_the_file(case):
    ours = jax.eval_shape(reference(case).init, jax.random.key(0))[0]
    expected = params(case, case.unpack("w"))
    assert jax.tree.map(lambda x: x.shape, ours) == jax.tree.map(lambda x: x.shape, expected)


def cvae(modalities=None, target="vector", **fields) -> CVAE:
    return CVAE(modalities=modalities or SMALL, target=target, **{"latent": 5, "features": 8, **fields})


@functools.cache
def moved(model: CVAE):
    """Parameters that say something: those of the last layers of a fresh attention are zero."""
    fresh, rng = jax.jit(model.init)(jax.random.key(0))[0], np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x) + 0.1 * rng.standard_normal(x.shape, np.float32), fresh)


def losses(model, params, batch, noise, step=STEP):
    return jax.jit(lambda *args: model.loss(*args)[0])(params, batch.masked(), noise, step)


@pytest.mark.parametrize("target", ["text", "vector"])
def test_what_is_missing_changes_nothing_to_the_bit(target):
    model, batch, other = cvae(EVERYTHING, target), random_batch(EVERYTHING), random_batch(EVERYTHING, seed=9).values
    params = moved(model)
    for i, name in enumerate(model.conditions):
        batch.present[name][:] = [True, i == 1, False, i != 1]  # all, one, none, and all but one of the conditions
    batch.present[target][3] = False

    def hide(name, x):
        there = batch.present[name].reshape(-1, *(1,) * (x.ndim - 1))
        return np.where(there, x, np.nan if x.dtype == np.float32 else other[name])

    hidden = Batch({name: hide(name, x) for name, x in batch.values.items()}, batch.present)

    @jax.jit
    def grads(batch):
        def loss(params):
            per_example = model.loss(params, batch.masked(), jax.random.key(1), STEP)[0]
            return per_example.mean(), per_example

        return jax.value_and_grad(loss, has_aux=True)(params)

    jax.tree.map(np.testing.assert_array_equal, grads(batch), grads(hidden))
    (_, per_example), gradients = grads(hidden)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert per_example[3] == 0 and (per_example[:3] != 0).all()
    hidden.present[target][:] = False
    assert all((x == 0).all() for x in jax.tree.leaves(grads(hidden)))


def test_the_batch_loss_is_that_of_its_examples_one_by_one():
    model, batch = cvae(), random_batch(SMALL, present=0.7)
    params, noise = moved(model), jax.random.normal(jax.random.key(1), (4, model.latent))
    whole = losses(model, params, batch, noise)
    for i in range(4):
        one = losses(model, params, batch.take(slice(i, i + 1)), noise[i : i + 1])
        np.testing.assert_allclose(one[0], whole[i], rtol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"target": "label"},
        {"latent": 6},
        {"beta": 2.0},
        {"beta": Ramp(0.0, 1.0, 10)},
        {"free_bits": 1.0},
        {"learn_prior": False},
        {"features": 9},
        {"weights": {"vector": 5.0}},
        {"dtype": "bfloat16"},
        {"encoder_network": SideBySide(("vector",), Output(4, 10))},
        {"condition_network": SideBySide(("pose",), Output(4, 8))},
        {"prior_network": Output(4, 10)},
    ],
    ids=str,
)
def test_every_field_changes_the_loss(change):
    changed = dataclasses.replace(cvae(), **change)
    before, after = (losses(model, moved(model), random_batch(SMALL), jax.random.key(1)) for model in (cvae(), changed))
    assert float(jnp.abs(before - after).min()) > 1e-4 and after.dtype == jnp.float32


@pytest.mark.parametrize("target", EVERYTHING)
def test_the_target_is_made_of_any_of_the_conditions_and_these_come_back_unchanged(target):
    model, key = cvae(EVERYTHING, target), jax.random.key(2)
    variables, given = {"params": moved(model)}, random_batch(EVERYTHING, 3).values
    for names in ((), model.conditions[:1], model.conditions[1:], model.conditions):
        made = model.sample(variables, key, 3, given={name: given[name] for name in names})
        assert list(made) == [name for name in EVERYTHING if name in (target, *names)]
        assert made[target].shape == (3, *EVERYTHING[target].shape)
        assert made[target].dtype == EVERYTHING[target].dtype
        jax.tree.map(np.testing.assert_array_equal, {n: made[n] for n in names}, {n: given[n] for n in names})
    whole = Batch(given, {name: np.full(3, name != target) for name in EVERYTHING})
    of_batch = model.sample(variables, key, 3, given=whole)
    assert list(of_batch) == [target]
    np.testing.assert_array_equal(of_batch[target], made[target])
    every = model.sample(variables, key, 3, given=given, targets=(target, "text"))
    jax.tree.map(np.testing.assert_array_equal, every, given)


def test_conditions_and_noise_move_what_is_made():
    model = cvae()
    sample = functools.partial(model.sample, {"params": moved(model)})
    made = {label: sample(jax.random.key(1), 4, given={"label": np.int32(label)})["vector"] for label in (0, 1)}
    assert float(jnp.abs(made[0] - made[1]).min()) > 1e-5
    np.testing.assert_array_equal(made[0], sample(jax.random.key(1), 4, given={"label": np.int32(0)})["vector"])
    assert float(jnp.abs(made[0] - sample(jax.random.key(2), 4, given={"label": np.int32(0)})["vector"]).min()) > 1e-5
    assert len(np.unique(made[0], axis=0)) == 4


def test_a_batch_gives_each_example_its_own_parts():
    model, rows = cvae(), random_batch(SMALL, 3)
    there = {"vector": np.arange(3) < 1, "label": np.arange(3) < 2, "pose": np.arange(3) < 2}
    given = Batch(rows.values, there)
    made = model.sample({"params": moved(model)}, jax.random.key(1), 3, given=given)["vector"]
    assert not np.array_equal(made[1], made[2])
    np.testing.assert_array_equal(made[0], rows.values["vector"][0])
    hidden = Batch({name: x.copy() for name, x in rows.values.items()}, there)
    hidden.values["vector"][1:], hidden.values["pose"][2], hidden.values["label"][2] = np.nan, np.nan, 1
    again = model.sample({"params": moved(model)}, jax.random.key(1), 3, given=hidden)["vector"]
    np.testing.assert_array_equal(made, again)


def test_reconstruction_looks_at_the_target_and_without_it_is_the_mean_given_the_conditions():
    model, batch = cvae(), random_batch(SMALL)
    params = moved(model)
    q, p, c = jax.jit(model.encode)(params, batch)
    without = Batch(batch.values, {**batch.present, "vector": np.zeros(4, bool)})
    for code, known in ((q, batch), (p, without)):
        made = model.reconstruct({"params": params}, known, jax.random.key(0))
        assert list(made) == ["vector"]
        expected = model.decoder(params, "vector")(jnp.concatenate([code.mean, c], axis=-1))
        np.testing.assert_allclose(made["vector"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"targets": ("vector", "label")},
            r"'label' cannot be made: this model makes only 'vector', given any of \['label', 'pose'\]",
        ),
        ({"targets": ("label",), "given": random_batch(SMALL, 2)}, "'label' cannot be made"),
        ({"targets": ("smell",)}, "'smell' is no modality of this model"),
        ({"given": {"smell": np.zeros(3)}}, "'smell' is no modality of this model"),
        ({"given": {"label": np.zeros(3)}}, r"given\['label'\] has shape \(3,\)"),
    ],
)
def test_sampling_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        cvae().sample({"params": {}}, jax.random.key(0), 2, **arguments)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "smell"}, r"target is 'smell', but must be one of two or more: of \['label', 'pose', 'vector'\]"),
        ({"modalities": {"vector": Vector(3)}}, r"target is 'vector', but must be one of two or more: of \['vector'\]"),
        ({"latent": 0}, "latent is 0, but must be at least 1"),
        ({"features": 0}, "features is 0, but must be at least 1"),
        ({"free_bits": -0.5}, "free_bits is -0.5, but must not be negative"),
        ({"weights": {"label": 2.0}}, "weights names 'label', but the target 'vector' alone has a likelihood"),
        ({"weights": {"smell": 2.0}}, "weights names 'smell', but the modalities are"),
        ({"learn_prior": False, "prior_network": Output(4, 10)}, "prior_network is given, but learn_prior=False"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae(**fields)


def test_fifty_steps_lower_the_loss_and_what_is_made_follows_the_condition():
    """Three clusters named by the label."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 96).astype(np.int32)
    centres = np.array([[-2, 0, 2], [2, -2, 0], [0, 2, -2]], np.float32)
    vector = centres[label] + 0.1 * rng.standard_normal((96, 3)).astype(np.float32)
    batch = Batch({"label": label, "vector": vector}, {"label": np.arange(96) % 4 > 0, "vector": np.ones(96, bool)})
    modalities = {"label": Label(3), "vector": Vector(3, likelihood=Normal(0.3), features=32)}
    model, tx = cvae(modalities, features=32, latent=2), optax.adam(1e-2)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(jax.random.key(0))
    step, curve = jax.jit(functools.partial(model.step, tx)), []
    for i in range(50):
        state, metrics = step(state, batch, jax.random.fold_in(jax.random.key(1), i))
        curve.append(float(metrics["loss"]))
    assert set(metrics) == {"loss", "grad_norm", "nll", "kl"}
    assert np.isfinite(curve).all() and np.mean(curve[-5:]) < np.mean(curve[:5]) / 5
    made = model.sample(state.variables, jax.random.key(2), 96, given={"label": label})["vector"]
    assert float(jnp.abs(made - centres[label]).mean()) < 0.3


class Affine(nn.Module):
    """W x + b of a set size; the second half of the outputs is b alone where `constant` says so."""

    outputs: int
    constant: bool = False

    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(self.outputs, bias_init=nn.initializers.normal())(x)
        raw = self.param("log_var", nn.initializers.normal(), (self.outputs,))
        return jnp.concatenate([mean, jnp.broadcast_to(raw, mean.shape)], axis=-1) if self.constant else mean


@pytest.mark.parametrize("learn_prior", [True, False], ids=["learned prior", "N(0, I)"])
def test_importance_sampling_converges_to_the_closed_form_of_a_linear_gaussian_model(learn_prior):
    """y = A z + B x + b + 0.7 e and z ~ N(m(x), S): p(y | x) = N(A m + B x + b, A S A^T + 0.49 I)."""
    modalities = {"y": Vector(3, likelihood=Normal(0.7), decoder=Affine(3)), "x": Vector(2), "w": Vector(1)}
    model = CVAE(
        modalities=modalities, target="y", latent=2, learn_prior=learn_prior,
        encoder_network=SideBySide(("y", "x"), Affine(2, constant=True)),
        condition_network=SideBySide(("w", "x")),
        prior_network=Affine(2, constant=True) if learn_prior else None,
    )  # fmt: skip
    params, batch = jax.jit(model.init)(jax.random.key(0))[0], random_batch(modalities, n=3)
    batch.present["w"][1], batch.present["y"][2] = False, False
    estimate = log_likelihood(model, params, batch, jax.random.key(1), 50_000, given=("x", "w"))
    weights, bias = (np.asarray(params["decoders"]["y"]["Dense_0"][leaf], np.float64) for leaf in ("kernel", "bias"))
    for i in range(2):
        x = np.concatenate([np.where(batch.present[name][i], batch.values[name][i], 0) for name in ("w", "x")])
        mean, variance = np.zeros(2), np.ones(2)
        if learn_prior:
            prior = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["prior"])
            mean = x @ prior["Dense_0"]["kernel"] + prior["Dense_0"]["bias"]
            variance = np.exp(prior["log_var"])
        residual = batch.values["y"][i] - np.concatenate([mean, x]) @ weights - bias
        covariance = weights[:2].T @ np.diag(variance) @ weights[:2] + 0.49 * np.eye(3)
        exact = -0.5 * (residual @ np.linalg.solve(covariance, residual) + np.linalg.slogdet(2 * np.pi * covariance)[1])
        assert abs(estimate.value[i] - exact) < 4 * estimate.error[i] and 0 < estimate.error[i] < 0.05
    np.testing.assert_allclose((estimate.value[2], estimate.error[2]), 0, atol=1e-4)


def test_there_is_no_likelihood_but_that_given_all_conditions():
    with pytest.raises(ValueError, match=r"given is \('pose',\), but must name \['label', 'pose'\]"):
        log_likelihood(cvae(), {}, random_batch(SMALL), jax.random.key(0), 1, given=("pose",))
