"""Properties of the VAE: masks, order, sampling, likelihood, and that every hyper-parameter counts."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.modalities import Image, Label, Normal, Text, Vector
from mmgen_jax.types import Batch
from mmgen_jax.vae import (
    MVTCAE,
    VAE,
    MixtureOfExperts,
    MixtureOfProducts,
    MoPoE,
    ProductOfExperts,
    SelfAttention,
    log_likelihood,
)
from mmgen_jax.vae.latent import Gaussian, Noise

FUSIONS = [ProductOfExperts(), ProductOfExperts(prior=True), MixtureOfExperts(), MixtureOfProducts(), SelfAttention()]
OBJECTIVES = [MVTCAE(), MoPoE()]
EVERYTHING = {
    "image": Image(5, 4, 2, features=2),
    "text": Text(6, features=8),
    "label": Label(3, features=8),
    "vector": Vector(3, features=8),
}
SMALL = {name: EVERYTHING[name] for name in ("label", "vector")}
STEP = np.zeros((), np.int32)


def data(modalities, n=4, seed=0, present=1.0):
    rng = np.random.default_rng(seed)

    def values(m):
        if m.dtype == np.float32:
            return rng.random((n, *m.shape)).astype(np.float32)
        return rng.integers(2 if m.shape else 0, 3, (n, *m.shape)).astype(np.int32)

    there = {name: rng.random(n) < present for name in modalities}
    return Batch({name: values(m) for name, m in modalities.items()}, there)


def names_of(values):
    return [type(v).__name__ for v in values]


def vae(objective=None, modalities=None, **fields) -> VAE:
    return VAE(modalities=modalities or SMALL, latent=5, objective=objective or MVTCAE(), **fields)


@functools.cache
def fresh(model: VAE):
    return jax.jit(model.init)(jax.random.key(0))[0]


def losses(model, params, batch, key_or_noise):
    """The loss of every example, compiled: op by op takes ten times as long."""
    return jax.jit(lambda *args: model.loss(*args)[0])(params, batch.masked(), key_or_noise, STEP)


@pytest.mark.parametrize("fusion", FUSIONS, ids=names_of(FUSIONS))
@pytest.mark.parametrize("objective", OBJECTIVES, ids=names_of(OBJECTIVES))
def test_what_is_missing_changes_nothing_to_the_bit(objective, fusion):
    # Every modality once; for the other fusions two are enough.
    everything = isinstance(fusion, type(objective.fusion))
    modalities = EVERYTHING if everything else SMALL
    model = vae(dataclasses.replace(objective, fusion=fusion), modalities, private={"vector": 2})
    params = fresh(model)
    batch = data(modalities, present=0.5)
    batch.present["vector"][:] = [True, False, False, True]
    other = data(modalities, seed=9)
    hidden = Batch(
        {m: np.where(expand(batch.present[m], x), x, other.values[m]) for m, x in batch.values.items()}, batch.present
    )
    hidden.values["vector"][1:3] = np.nan

    @jax.jit
    def grads(batch):
        return jax.value_and_grad(lambda p: model.loss(p, batch.masked(), jax.random.key(1), STEP)[0].mean())(params)

    jax.tree.map(np.testing.assert_array_equal, grads(batch), grads(hidden))
    assert bool(jnp.isfinite(grads(hidden)[0]))


def expand(there, x):
    return there.reshape(there.shape + (1,) * (x.ndim - 1))


@pytest.mark.parametrize("fusion", FUSIONS, ids=names_of(FUSIONS))
def test_fusion_of_nothing_is_the_prior_and_order_does_not_matter(fusion):
    mean, log_var = (jax.random.normal(jax.random.key(i), (3, 4, 5)) for i in (0, 1))
    present = jnp.array([[True, True, False, False], [True, False, True, False], [True, True, True, False]])
    params = fusion.init(jax.random.key(2), 5)
    # A fresh attention is the product of experts; moved parameters show what it does of its own.
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(3), x.shape), params)
    experts = Gaussian(mean, log_var)
    names = ("a", "b", "c")
    for combine in (fusion.joint, fusion.conditional):
        mixture = combine(params, experts, present, names)
        np.testing.assert_allclose(mixture.weights.sum(0), 1, rtol=1e-6)
        nothing = jax.tree.map(lambda x: x[:, 3], mixture)
        used = nothing.weights > 0
        np.testing.assert_array_equal(nothing.components.mean[used], 0)
        np.testing.assert_allclose(nothing.components.log_var[used], 0, atol=1e-6)
        order = jnp.array([2, 0, 1])
        moved = combine(
            params, jax.tree.map(lambda x, o=order: x[o], experts), present[order], tuple(names[i] for i in order)
        )
        z = jax.random.normal(jax.random.key(4), (4, 5))
        np.testing.assert_allclose(mixture.log_prob(z), moved.log_prob(z), rtol=1e-5)


def test_product_of_two_gaussians_in_closed_form():
    experts = Gaussian(jnp.array([[[0.0]], [[3.0]]]), jnp.log(jnp.array([[[1.0]], [[2.0]]])))
    q = ProductOfExperts(eps=0.0).joint({}, experts, jnp.ones((2, 1), bool), ("a", "b")).components
    np.testing.assert_allclose(q.mean[0, 0, 0], 1.0, rtol=1e-6)  # (0/1 + 3/2) / (1 + 1/2)
    np.testing.assert_allclose(jnp.exp(q.log_var)[0, 0, 0], 2 / 3, rtol=1e-6)


def test_mixture_of_products_takes_only_subsets_that_are_all_there():
    experts = Gaussian(jnp.zeros((2, 2, 1)), jnp.zeros((2, 2, 1)))
    present = jnp.array([[True, True], [True, False]])
    weights = MixtureOfProducts().joint({}, experts, present, ("a", "b")).weights
    np.testing.assert_allclose(weights, [[1 / 3, 1], [1 / 3, 0], [1 / 3, 0]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"subsets name \['z'\], but the modalities are \['a', 'b'\]"):
        MixtureOfProducts(subsets=(("z",),)).joint({}, experts, present, ("a", "b"))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=names_of(OBJECTIVES))
def test_the_batch_loss_is_that_of_its_examples_one_by_one_and_the_order_of_modalities_does_not_matter(objective):
    model = vae(objective)
    params, batch = fresh(model), data(SMALL, present=0.7)
    noise = jax.jit(lambda b: Noise.draw(jax.random.key(1), model.encode(params, b)))(batch.masked())
    whole = losses(model, params, batch, noise)
    for i in range(4):
        one = Noise(noise.z[i : i + 1], noise.choice[:, i : i + 1], {})
        alone = losses(model, params, batch.take(slice(i, i + 1)), one)
        np.testing.assert_allclose(alone[0], whole[i], rtol=2e-5)
    if isinstance(objective, MVTCAE):  # one component: the noise means the same in any order
        turned = vae(objective, dict(reversed(SMALL.items())))
        np.testing.assert_allclose(losses(turned, params, batch, noise), whole, rtol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"objective": MVTCAE(alpha=0.3)},
        {"objective": MVTCAE(beta=1.0)},
        {"objective": MVTCAE(beta_private=3.0)},
        {"objective": MVTCAE(warmup=10)},
        {"objective": MVTCAE(fusion=MixtureOfExperts())},
        {"objective": MVTCAE(fusion=ProductOfExperts(eps=0.5))},
        {"objective": MoPoE()},
        {"objective": MoPoE(beta=2.0)},
        {"objective": MoPoE(warmup=10)},
        {"objective": MoPoE(beta_private=3.0)},
        {"objective": MoPoE(fusion=MixtureOfProducts(subsets=(("label",),)))},
        {"weights": {"label": 5.0}},
        {"private": {"vector": 3}},
    ],
    ids=str,
)
def test_every_field_changes_the_loss(change):
    base = vae(private={"vector": 2})
    changed = dataclasses.replace(base, **change)
    params = fresh(changed) if "private" in change else fresh(base)
    before = losses(base, fresh(base), data(SMALL), jax.random.key(1))
    assert float(jnp.abs(before - losses(changed, params, data(SMALL), jax.random.key(1))).min()) > 1e-4


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
            {"given": data(SMALL)},
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
        ({"weights": {"smell": 1.0}}, "weights names 'smell', but the modalities are"),
        ({"private": {"label": -1}}, r"private\['label'\] is -1, but must be positive"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VAE(**{"modalities": EVERYTHING, **fields})
    with pytest.raises(ValueError, match="alpha is 1.5, but it must be between 0 and 1"):
        MVTCAE(alpha=1.5)


def test_bfloat16_computes_low_and_keeps_float32():
    model = vae(dtype="bfloat16")
    params = fresh(model)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    low, high = (losses(m, params, data(SMALL), jax.random.key(1)) for m in (model, vae()))
    assert low.dtype == jnp.float32 and not np.array_equal(low, high)
    np.testing.assert_allclose(low, high, rtol=0.05)


class Linear(nn.Module):
    """A decoder for which log p(x) is known: x = W z + noise."""

    @nn.compact
    def __call__(self, z):
        return nn.Dense(2, use_bias=False)(z)


@pytest.mark.parametrize("fusion", [ProductOfExperts(), MixtureOfExperts(), MixtureOfProducts()], ids=str)
def test_importance_sampling_converges_to_the_closed_form_of_a_linear_gaussian_model(fusion):
    modalities = {m: Vector(2, likelihood=Normal(0.7), decoder=Linear()) for m in "ab"}
    model = VAE(modalities=modalities, latent=2, objective=MVTCAE(fusion=fusion))
    params, batch = fresh(model), data(modalities, n=3)
    batch.present["b"][2] = False
    estimate = jax.jit(log_likelihood, static_argnums=(0, 4))(model, params, batch, jax.random.key(1), 20_000)
    w = [np.asarray(params["decoders"][m]["Dense_0"]["kernel"], np.float64).T for m in "ab"]
    for i in range(3):
        there = [j for j, m in enumerate("ab") if batch.present[m][i]]
        loadings = np.concatenate([w[j] for j in there])
        x = np.concatenate([batch.values["ab"[j]][i] for j in there])
        covariance = loadings @ loadings.T + 0.49 * np.eye(len(x))
        exact = -0.5 * (x @ np.linalg.solve(covariance, x) + np.linalg.slogdet(covariance)[1])
        np.testing.assert_allclose(estimate[i], exact - len(x) / 2 * math.log(2 * math.pi), atol=0.05)
