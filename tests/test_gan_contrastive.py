"""Contrastive losses: closed forms, embeddings without a direction, half precision, and negatives of all devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mmgen_jax.gan import contrastive

KEY = jax.random.key(0)
LOSSES = {
    "one_way": contrastive.one_way,
    "info_nce": contrastive.info_nce,
    "clip": lambda a, b: contrastive.clip(a, b, 2.0),
    "siglip": lambda a, b: contrastive.siglip(a, b, 2.0, -3.0),
}


def test_closed_forms():
    """Of n embeddings at right angles to each other, each pair alike: cosines are the identity."""
    n, t, c = 5, 3.0, -1.0
    eye = 2 * jnp.eye(n)
    one = np.log(1 + (n - 1) * np.exp(-t))
    np.testing.assert_allclose(contrastive.one_way(eye, 7 * eye, t), np.full(n, one), rtol=1e-5)
    np.testing.assert_allclose(contrastive.info_nce(eye, eye, t), np.full(n, 2 * one), rtol=1e-5)
    np.testing.assert_allclose(contrastive.clip(eye, eye, np.log(t)), np.full(n, one), rtol=1e-5)
    pairs = np.log1p(np.exp(-t - c)) + (n - 1) * np.log1p(np.exp(c))
    np.testing.assert_allclose(contrastive.siglip(eye, eye, np.log(t), c), np.full(n, pairs), rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_what_has_no_direction_is_like_nothing_and_still_has_a_gradient(name):
    a = jax.random.normal(KEY, (4, 3)).at[1].set(0)
    values, pull = jax.vjp(LOSSES[name], a, a)
    assert np.isfinite(values).all() and all(np.isfinite(g).all() for g in pull(jnp.ones(4)))
    np.testing.assert_allclose(contrastive.cosines(a, a)[1], 0)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_made_whole(name):
    a, b = jax.random.normal(KEY, (2, 4, 3)).astype(jnp.bfloat16)
    values = LOSSES[name](a, b)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, LOSSES[name](a.astype(jnp.float32), b.astype(jnp.float32)), rtol=1e-6)


def test_what_is_not_there_is_not_told_from():
    a, b = jax.random.normal(KEY, (2, 6, 3))
    there = jnp.array([True, False, True, True, False, True])
    values, pull = jax.vjp(lambda a, b: contrastive.info_nce(a, b, there=there), a, b)
    np.testing.assert_allclose(values[there], contrastive.info_nce(a[there], b[there]), rtol=1e-5)
    for gradient in pull(there.astype(jnp.float32)):
        assert not gradient[~there].any() and np.all(gradient[there] != 0)
    none = jax.vjp(lambda a: contrastive.info_nce(a, b, there=jnp.zeros(6, bool)), a)
    assert np.isfinite(none[0]).all() and np.isfinite(none[1](jnp.zeros(6))[0]).all()


@pytest.mark.parametrize("name", ["one_way", "siglip"])  # of which the others are made
def test_devices_by_themselves_see_all_negatives(name):
    """Under shard_map values and gradients are those of the whole batch, rows over two axes of the mesh."""
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    a, b = jax.random.normal(KEY, (2, 16, 3))
    rows = PartitionSpec(("x", "y"))
    each = jax.shard_map(LOSSES[name], mesh=mesh, in_specs=rows, out_specs=rows)

    @jax.jit
    def both(a, b):
        return [jax.vjp(loss, a, b) for loss in (each, LOSSES[name])]

    (found, pull), (wanted, truth) = both(a, b)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    weights = jnp.arange(16.0)
    for one, other in zip(pull(weights), truth(weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
