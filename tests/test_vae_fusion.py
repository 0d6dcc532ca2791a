"""Fusions: order, masks, closed forms, and that learned ones start as the product they add to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.modalities import Vector
from mmgen_jax.vae import (
    GeneralizedProduct,
    JointEncoder,
    MixtureOfExperts,
    MixtureOfProducts,
    ProductOfExperts,
    SelfAttention,
    SumPooling,
)
from mmgen_jax.vae.fusion import Evidence, membership, product, subsets_of
from mmgen_jax.vae.latent import Gaussian

FUSIONS = [
    ProductOfExperts(),
    ProductOfExperts(prior=True),
    GeneralizedProduct(),
    MixtureOfExperts(),
    MixtureOfProducts(),
    SumPooling(features=8),
    SelfAttention(features=8),
    JointEncoder(features=8),
]
NAMES = [f"{type(f).__name__}{'-prior' if getattr(f, 'prior', False) else ''}" for f in FUSIONS]
MODALITIES = {m: Vector(2, features=8) for m in "abc"}


def evidence(mean, log_var, present, modalities=MODALITIES, order=(0, 1, 2)):
    """Experts and values in the order given; the values are zero where missing, as in a masked batch."""
    order = np.array(order)
    values = {m: jnp.where(present["abc".index(m)][:, None], mean["abc".index(m)][:, :2], 0) for m in modalities}
    experts = Gaussian(jnp.where(present[..., None], mean, 0)[order], jnp.where(present[..., None], log_var, 0)[order])
    return Evidence(modalities, values, present[order], experts)


@pytest.mark.parametrize("fusion", FUSIONS, ids=NAMES)
def test_fusion_of_nothing_is_the_prior_and_order_does_not_matter(fusion):
    mean, log_var = (jax.random.normal(jax.random.key(i), (3, 4, 5)) for i in (0, 1))
    present = jnp.array([[True, True, False, False], [True, False, True, False], [True, True, True, False]])
    params = fusion.init(jax.random.key(2), MODALITIES, 5)
    # A fresh fusion is the product of experts, or the prior; moved parameters show what it does of its own.
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(3), x.shape), params)
    turned = {m: MODALITIES[m] for m in "cab"}
    moved_params = params
    if isinstance(fusion, GeneralizedProduct):  # its weights follow the modalities
        moved_params = {"log_weights": params["log_weights"][np.array([2, 0, 1])]}
    for method in ("joint", "conditional"):
        mixture = getattr(fusion, method)(params, evidence(mean, log_var, present))
        np.testing.assert_allclose(mixture.weights.sum(0), 1, rtol=1e-6)
        nothing = jax.tree.map(lambda x: x[:, 3], mixture)
        used = nothing.weights > 0
        np.testing.assert_array_equal(nothing.components.mean[used], 0)
        np.testing.assert_allclose(nothing.components.log_var[used], 0, atol=1e-6)
        moved = getattr(fusion, method)(moved_params, evidence(mean, log_var, present, turned, (2, 0, 1)))
        z = jax.random.normal(jax.random.key(4), (4, 5))
        np.testing.assert_allclose(mixture.log_prob(z), moved.log_prob(z), rtol=1e-5)


@pytest.mark.parametrize("fusion", [SumPooling(features=8), SelfAttention(features=8)], ids=lambda f: type(f).__name__)
def test_learned_pooling_starts_as_the_product_of_experts(fusion):
    mean, log_var = (jax.random.normal(jax.random.key(i), (3, 4, 5)) for i in (0, 1))
    present = jnp.ones((3, 4), bool)
    ours = fusion.joint(fusion.init(jax.random.key(2), MODALITIES, 5), evidence(mean, log_var, present)).components
    np.testing.assert_allclose(ours.mean[0], product(Gaussian(mean, log_var), present, eps=1e-8).mean, rtol=1e-6)


def test_product_of_two_gaussians_in_closed_form():
    experts = Gaussian(jnp.array([[[0.0]], [[3.0]]]), jnp.log(jnp.array([[[1.0]], [[2.0]]])))
    q = product(experts, jnp.ones((2, 1), bool))
    np.testing.assert_allclose(q.mean[0, 0], 1.0, rtol=1e-6)  # (0/1 + 3/2) / (1 + 1/2)
    np.testing.assert_allclose(jnp.exp(q.log_var)[0, 0], 2 / 3, rtol=1e-6)
    # Several sets at once, the second of which has the prior as one more expert: (0/1 + 3/2 + 0) / (1 + 1/2 + 1)
    both = product(experts, jnp.ones((2, 2, 1), bool), prior=jnp.array([[False], [True]]))
    np.testing.assert_allclose(both.mean[:, 0, 0], [1.0, 0.6], rtol=1e-6)


def test_a_generalised_product_of_equal_weights_has_the_geometric_mean_as_density():
    experts = Gaussian(jnp.array([[[0.0]], [[3.0]]]), jnp.log(jnp.array([[[1.0]], [[2.0]]])))
    two = {m: MODALITIES[m] for m in "ab"}
    fusion, seen = GeneralizedProduct(), Evidence(two, {}, jnp.ones((2, 1), bool), experts)
    q = fusion.joint(fusion.init(jax.random.key(0), two, 1), seen).components
    np.testing.assert_allclose([q.mean[0, 0, 0], jnp.exp(q.log_var)[0, 0, 0]], [1.0, 4 / 3], rtol=1e-6)


def test_mixture_of_products_takes_only_subsets_that_are_all_there():
    experts = Gaussian(jnp.zeros((2, 2, 1)), jnp.zeros((2, 2, 1)))
    two = {m: MODALITIES[m] for m in "ab"}
    seen = Evidence(two, {}, jnp.array([[True, True], [True, False]]), experts)
    np.testing.assert_allclose(
        MixtureOfProducts().joint({}, seen).weights, [[1 / 3, 1], [1 / 3, 0], [1 / 3, 0]], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"subsets name \['z'\], but the modalities are \['a', 'b'\]"):
        MixtureOfProducts(subsets=(("z",),)).joint({}, seen)


def test_subsets_and_who_is_in_them():
    assert subsets_of(("a", "b", "c"), range(2, 3)) == (("a", "b"), ("a", "c"), ("b", "c"))
    np.testing.assert_array_equal(
        membership(subsets_of(("a", "b")), ("a", "b")), [[True, False], [False, True], [True, True]]
    )
    assert membership((), ("a", "b")).shape == (0, 2)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_an_expert_that_says_nothing_at_all_has_a_gradient(eps):
    def code(log_var):
        experts = Gaussian(jnp.full((2, 1, 1), 3.0), jnp.stack([jnp.zeros((1, 1)), log_var]))
        q = product(experts, jnp.ones((2, 1), bool), prior=True, eps=eps)
        return q.mean.sum() + q.log_var.sum()

    for size in (88.0, 120.0):
        value, slope = jax.value_and_grad(code)(jnp.full((1, 1), size))
        assert np.isfinite(value) and np.isfinite(slope).all()
    np.testing.assert_allclose(code(jnp.full((1, 1), 120.0)), 1.5 - np.log(2), rtol=1e-6)
