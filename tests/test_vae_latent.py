"""Distributions of codes: reference numbers, families, mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import Case, assert_close, of_models

from mmgen_jax.vae.fusion import product
from mmgen_jax.vae.latent import Gaussian, Laplace, Mixture, distribution

reads = of_models("primitives")


def test_primitives(golden_vae):
    with jax.enable_x64(True):
        file = Case(golden_vae).file
        experts = Gaussian(jnp.asarray(file["mus"]), jnp.asarray(file["logvars"]))
        everywhere = np.ones(file["mus"].shape[:-1], bool)
        for key, eps in (("poe_eps", 1e-8), ("poe", 0.0)):
            q = product(experts, everywhere, eps=eps)
            assert_close(q.mean, file[f"{key}/mu"])
            assert_close(q.log_var, file[f"{key}/logvar"])
        first, second = (jax.tree.map(lambda x, i=i: x[i], experts) for i in (0, 1))
        assert_close(first.kl(second), file["kl"])


@pytest.mark.parametrize("family", ["normal", "normal_softplus", "laplace"])
def test_densities_integrate_to_one_and_samples_follow_them(family):
    q = distribution(family, jnp.array([[0.7]]), jnp.array([[-0.4]]))
    z = jnp.linspace(-40, 40, 80_001)[:, None, None]
    density = jnp.exp(q.log_prob(z))[:, 0]
    np.testing.assert_allclose(density.sum() * 0.001, 1, rtol=1e-3)
    drawn = q.at(q.noise(jax.random.key(0), (100_000, 1, 1), jnp.float32))
    spread = (density * (z[:, 0, 0] - 0.7) ** 2).sum() * 0.001
    np.testing.assert_allclose([drawn.mean(), drawn.var()], [0.7, spread], rtol=0.03)


def test_the_scales_of_the_laplace_family_add_up_to_the_dimensions():
    q = distribution("laplace", jnp.zeros((2, 5)), jax.random.normal(jax.random.key(0), (2, 5)))
    np.testing.assert_allclose(q.scale.sum(-1), 5, rtol=1e-4)
    assert isinstance(q, Laplace)


def test_a_mixture_has_the_density_mean_and_samples_of_its_parts():
    means, weights = jnp.array([[[-3.0]], [[1.0]]]), jnp.array([[0.25], [0.75]])
    mixture = Mixture(Gaussian(means, jnp.full_like(means, -2.0)), weights)
    z = jnp.linspace(-8, 8, 1601)[:, None, None]
    np.testing.assert_allclose(jnp.exp(mixture.log_prob(z)).sum() * 0.01, 1, rtol=1e-4)
    np.testing.assert_allclose(mixture.mean, [[0.0]], atol=1e-6)
    drawn = jax.vmap(mixture.sample)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose([drawn.mean(), (drawn < -1).mean()], [0, 0.25], atol=0.08)
