"""Importance sampling against the closed form of a linear-Gaussian model, for every kind of posterior."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_vae_objectives import JOINT, KINDS

from mmgen_jax.modalities import Normal, Vector
from mmgen_jax.types import Batch
from mmgen_jax.vae import JNF, MHVAE, MMVAE, MVTCAE, VAE, MMVAEPlus, Nexus, log_likelihood
from mmgen_jax.vae.latent import Gaussian, Mixture


class Linear(nn.Module):
    """A decoder for which log p(x) is known: x = W z + noise."""

    @nn.compact
    def __call__(self, z):
        return nn.Dense(2, use_bias=False)(z)


MODALITIES = {m: Vector(2, likelihood=Normal(0.7), features=4, decoder=Linear()) for m in "abc"}


def data():
    rng = np.random.default_rng(0)
    values = {m: rng.random((4, 2), np.float32) for m in MODALITIES}
    present = {"a": [True, True, False, True], "b": [True, True, True, False], "c": [True, False, False, False]}
    return Batch(values, {m: np.array(there) for m, there in present.items()})


@functools.cache
def fresh(model):
    params = jax.jit(model.init)(jax.random.key(0))[0]
    if isinstance(model, Nexus):  # posteriors nearer to the prior: those of fresh networks miss the true ones by far
        params |= jax.tree.map(lambda x: 0.5 * x, {part: params[part] for part in ("encoders", "joint")})
    for prior in params.get("prior", {}).values():  # of an MHVAE: linear only with a constant variance, here 1
        last = prior["Dense_0"]["kernel"]
        prior["Dense_0"]["kernel"] = last.at[:, last.shape[1] // 2 :].set(0)
    return params


def matrix(*layers):
    """Of linear layers one after the other, whose biases are zero."""
    return functools.reduce(np.matmul, [np.asarray(layer["kernel"], np.float64) for layer in layers]).T


def loadings(model, params):
    """By modality S and P in x = S s + P p + 0.7 e: s is normal and shared by all, p is normal and its own."""
    decoders = {m: matrix(params["decoders"][m]["Dense_0"]) for m in MODALITIES}
    if isinstance(model, Nexus):
        predictions = {m: matrix(f["encoder"], f["Dense_0"]) for m, f in params["predictions"].items()}
        return {m: (w @ predictions[m], w) for m, w in decoders.items()}
    if isinstance(model, MHVAE):
        codes = [np.eye(model.levels[0])]  # what the noise of each level adds to z_1
        for level, size in enumerate(model.levels[:-1], 1):
            down, prior = params["top_down"][f"level_{level}"], params["prior"][f"level_{level}"]
            codes.append(codes[-1] @ matrix(down, prior["encoder"], prior["Dense_0"])[:size])
        return {m: (w @ np.hstack(codes), np.zeros((2, 0))) for m, w in decoders.items()}
    return {m: (w[:, : model.latent], w[:, model.latent :]) for m, w in decoders.items()}


def exact(model, params, batch, i, names):
    """log N of what is present of `names`."""
    there = [m for m in names if batch.present[m][i]]
    shared, own = zip(*(loadings(model, params)[m] for m in there), strict=True)
    x = np.concatenate([batch.values[m][i] for m in there])
    covariance = np.vstack(shared) @ np.vstack(shared).T + 0.49 * np.eye(len(x))
    for k, p in enumerate(own):
        covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] += p @ p.T
    square = x @ np.linalg.solve(covariance, x)
    return -0.5 * (square + np.linalg.slogdet(covariance)[1] + len(x) * math.log(2 * math.pi))


# Every objective whose prior is normal, with the posterior of its own; families other than normal have other models.
GAUSSIAN = {name: k.objective for name, k in KINDS.items() if k.objective.family == "normal" and name[-1] != "2"}
GAUSSIAN |= {"MMVAE": MMVAE(learn_prior=False, family="normal"), "MMVAE+": MMVAEPlus(family="normal")}


def vae(objective):
    private = {} if isinstance(objective, MMVAE) else dict.fromkeys(MODALITIES, 1)
    return VAE(modalities=MODALITIES, latent=2, private=private, objective=objective)


NEXUS = Nexus(modalities=MODALITIES, latent=2, private={"a": 1}, message=3, features=4, block=nn.Dense(4))
MODELS = {name: vae(objective) for name, objective in GAUSSIAN.items()} | {
    "Nexus": NEXUS,
    # With this eps the posteriors are wide enough to cover the true ones, which those of fresh networks miss by far.
    "MHVAE": MHVAE(modalities=MODALITIES, levels=(2, 3, 1), features=4, block=nn.Dense(4), eps=3),
}
PLAIN = VAE(modalities=MODALITIES, latent=2, objective=MVTCAE())


@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_converges_to_the_closed_form(name):
    model = MODELS[name]
    params, batch = fresh(model), data()
    found = log_likelihood(model, params, batch, jax.random.key(1), 4000, chunk=500)
    truth = [exact(model, params, batch, i, MODALITIES) for i in range(4)]
    assert found.error.max() < 0.1
    np.testing.assert_allclose(found.value, truth, atol=5 * float(found.error.max()))


def test_the_estimate_of_the_rest_given_some():
    params, batch = fresh(PLAIN), data()
    found = log_likelihood(PLAIN, params, batch, jax.random.key(1), 4000, given=("a",), chunk=500)
    for i in (0, 1, 3):  # of the third a is missing
        truth = exact(PLAIN, params, batch, i, MODALITIES) - exact(PLAIN, params, batch, i, "a")
        np.testing.assert_allclose(found.value[i], truth, atol=5 * float(found.error[i]) + 1e-4)
    truth = exact(PLAIN, params, batch, 2, MODALITIES)
    np.testing.assert_allclose(found.value[2], truth, atol=5 * float(found.error[2]))


def test_what_is_not_there_at_all_has_probability_one():
    model = VAE(modalities=MODALITIES, latent=2, objective=JNF(fusion=JOINT, hidden=8))
    nothing = Batch(data().values, {m: np.zeros(4, bool) for m in MODALITIES})
    found = log_likelihood(model, fresh(model), nothing, jax.random.key(1), 3)
    np.testing.assert_array_equal(found.value, np.zeros(4))


def test_scales_that_are_fitted_to_each_batch_leave_no_likelihood():
    model = dataclasses.replace(NEXUS, adapt=("b",))
    with pytest.raises(ValueError, match=r"adapt is \('b',\), but a likelihood needs scales that are not fitted"):
        log_likelihood(model, {}, data(), jax.random.key(0), 2)


def test_chunks_change_nothing_and_errors_shrink_as_the_root():
    one, other = (log_likelihood(PLAIN, fresh(PLAIN), data(), jax.random.key(1), 300, chunk=c) for c in (7, 300))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-5)
    more = log_likelihood(PLAIN, fresh(PLAIN), data(), jax.random.key(1), 4800, chunk=500)
    np.testing.assert_allclose(more.error, one.error / 4, rtol=0.3)


def test_draws_are_spread_over_the_components_in_proportion_to_their_weights():
    weights = jnp.array([[0.25, 0.0], [0.0, 0.5], [0.75, 0.5]])
    means = jnp.broadcast_to(jnp.arange(3.0)[:, None, None], (3, 2, 1))
    mixture = Mixture(Gaussian(means, jnp.zeros_like(means)), weights)
    drawn = np.stack([mixture.stratum(jnp.full(2, (k + 0.3) / 8)).mean[:, 0] for k in range(8)])
    np.testing.assert_array_equal(drawn[:, 0], [0, 0, 2, 2, 2, 2, 2, 2])
    np.testing.assert_array_equal(drawn[:, 1], [1, 1, 1, 1, 2, 2, 2, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples is 0 and chunk is 10, but both must be at least 1"),
        ({"samples": 2, "given": ("smell",)}, r"given names \['smell'\], but the modalities are \['a', 'b', 'c'\]"),
    ],
)
def test_estimates_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        log_likelihood(PLAIN, {}, data(), jax.random.key(0), **arguments)
