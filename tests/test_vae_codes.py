"""The code of one modality by itself: what another model is trained on in place of the modality."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import random_batch

from mmgen_jax import vae
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.types import Batch

PAIR = {"a": Vector(3, features=8), "b": Label(3, features=8)}
MODELS = {
    "mvtcae": vae.VAE(modalities=PAIR, latent=4),
    "mopoe_private": vae.VAE(modalities=PAIR, latent=4, private={"a": 2}, objective=vae.MoPoE()),
    "mmvae": vae.VAE(modalities=PAIR, latent=4, objective=vae.MMVAE(samples=2)),
    "jnf": vae.VAE(modalities=PAIR, latent=4, objective=vae.JNF(fusion=vae.JointEncoder(features=8), hidden=8)),
    "nexus": vae.Nexus(modalities=PAIR, latent=4, private={"a": 6}, features=8),
    "mhvae": vae.MHVAE(modalities=PAIR, levels=(4, 3), features=8),
}


@functools.cache
def variables(name):
    return {"params": jax.jit(MODELS[name].init)(jax.random.key(0))[0]}


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_the_code_decodes_to_the_reconstruction_of_the_modality_alone(name):
    model, batch = MODELS[name], random_batch(PAIR, 3)
    mean, deviation = jax.jit(lambda v, x: model.to_code(v, "a", x))(variables(name), batch.values["a"])
    assert mean.shape == deviation.shape == (3, model.code_size("a"))
    alone = Batch(batch.values, {"a": np.ones(3, bool), "b": np.zeros(3, bool)})
    expected = model.reconstruct(variables(name), alone, jax.random.key(1))["a"]
    made = jax.jit(lambda v, z: model.from_code(v, "a", z))(variables(name), mean)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(made[:, 0]) > 0 and np.all(deviation >= 0)


@pytest.mark.parametrize("name", ["mvtcae", "mopoe_private", "mmvae"])
def test_mean_and_deviation_are_those_of_the_codes_that_are_drawn(name):
    model, x = MODELS[name], random_batch(PAIR, 1).values["a"]
    rows = model.alone("a", jnp.tile(x, (20_000, 1)))
    draw = jax.jit(lambda v, key: model.codes(v["params"], rows, key))
    codes = draw(variables(name), jax.random.key(0))
    drawn = np.concatenate([codes[part] for part in codes], axis=-1)
    mean, deviation = model.to_code(variables(name), "a", x)
    np.testing.assert_allclose(drawn.mean(0), mean[0], atol=0.05)
    np.testing.assert_allclose(drawn.std(0), deviation[0], rtol=0.1)
