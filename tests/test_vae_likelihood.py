"""Importance sampling against the closed form of a linear-Gaussian model, for every kind of posterior."""

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
from mmgen_jax.vae import JNF, MMVAE, MVTCAE, VAE, MMVAEPlus, log_likelihood
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
    return jax.jit(model.init)(jax.random.key(0))[0]


def exact(params, batch, i, names):
    """log N of what is present of `names`: the shared loadings side by side, private ones for each alone."""
    there = [m for m in names if batch.present[m][i]]
    w = {m: np.asarray(params["decoders"][m]["Dense_0"]["kernel"], np.float64).T for m in there}
    x = np.concatenate([batch.values[m][i] for m in there])
    blocks = [[w[m][:, :2] @ w[n][:, :2].T for n in there] for m in there]
    covariance = np.block(blocks) + 0.49 * np.eye(len(x))
    for k, m in enumerate(there):  # what only m has
        covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] += w[m][:, 2:] @ w[m][:, 2:].T
    square = x @ np.linalg.solve(covariance, x)
    return -0.5 * (square + np.linalg.slogdet(covariance)[1] + len(x) * math.log(2 * math.pi))


# Every objective whose prior is normal, with the posterior of its own; families other than normal have other models.
GAUSSIAN = {name: k.objective for name, k in KINDS.items() if k.objective.family == "normal" and name[-1] != "2"}
GAUSSIAN |= {"MMVAE": MMVAE(learn_prior=False, family="normal"), "MMVAE+": MMVAEPlus(family="normal")}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_estimate_converges_to_the_closed_form(name):
    private = {} if name == "MMVAE" else {m: 1 for m in MODALITIES}
    model = VAE(modalities=MODALITIES, latent=2, private=private, objective=GAUSSIAN[name])
    params, batch = fresh(model), data()
    found = log_likelihood(model, params, batch, jax.random.key(1), 4000, chunk=500)
    truth = [exact(params, batch, i, MODALITIES) for i in range(4)]
    assert found.error.max() < 0.1
    np.testing.assert_allclose(found.value, truth, atol=5 * float(found.error.max()))


def test_the_estimate_of_the_rest_given_some():
    model = VAE(modalities=MODALITIES, latent=2, objective=MVTCAE())
    params, batch = fresh(model), data()
    found = log_likelihood(model, params, batch, jax.random.key(1), 4000, given=("a",), chunk=500)
    for i in (0, 1, 3):  # of the third a is missing
        truth = exact(params, batch, i, MODALITIES) - (exact(params, batch, i, "a"))
        np.testing.assert_allclose(found.value[i], truth, atol=5 * float(found.error[i]) + 1e-4)
    np.testing.assert_allclose(found.value[2], exact(params, batch, 2, MODALITIES), atol=5 * float(found.error[2]))


def test_what_is_not_there_at_all_has_probability_one():
    model = VAE(modalities=MODALITIES, latent=2, objective=JNF(fusion=JOINT, hidden=8))
    nothing = Batch(data().values, {m: np.zeros(4, bool) for m in MODALITIES})
    found = log_likelihood(model, fresh(model), nothing, jax.random.key(1), 3)
    np.testing.assert_array_equal(found.value, np.zeros(4))


def test_chunks_change_nothing_and_errors_shrink_as_the_root():
    model = VAE(modalities=MODALITIES, latent=2, objective=MVTCAE())
    one, other = (log_likelihood(model, fresh(model), data(), jax.random.key(1), 300, chunk=c) for c in (7, 300))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-5)
    more = log_likelihood(model, fresh(model), data(), jax.random.key(1), 4800, chunk=500)
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
    model = VAE(modalities=MODALITIES, latent=2)
    with pytest.raises(ValueError, match=message):
        log_likelihood(model, {}, data(), jax.random.key(0), **arguments)
