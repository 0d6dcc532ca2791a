"""Quantisers: numbers and codes agree, gradients pass, codebooks begin at the data, dead codes come back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.tokens.fsq import FSQ
from mmgen_jax.tokens.quantizer import length, rotated, usage
from mmgen_jax.tokens.residual import Residual
from mmgen_jax.tokens.vq import VQ

KEY = jax.random.key(0)
KINDS = {
    "fsq": FSQ((5, 4)),
    "symmetric": FSQ((4, 3), symmetric=True),
    "averages": VQ(6, 2),
    "learned": VQ(6, 2, learned=True),
    "cosine": VQ(6, 2, cosine=True, rotation=True),
    "residual": Residual(VQ(6, 2), 3),
}


@pytest.mark.parametrize("name", KINDS)
def test_numbers_and_codes_agree_and_gradients_pass(name):
    quantizer, z = KINDS[name], jax.random.normal(KEY, (2, 3, 4, 2))
    params, stats = quantizer.init(KEY)

    @jax.jit
    def all_of_it(z):
        q = quantizer(params, stats, z)
        return (
            q,
            quantizer.codes(params, stats, q.indices),
            jax.grad(lambda z: quantizer(params, stats, z).codes.sum())(z),
        )

    q, again, slope = all_of_it(z)
    assert q.codes.shape == z.shape and q.error.shape == z.shape[:-1]
    assert q.indices.shape == (*z.shape[:-1], quantizer.symbols) and q.indices.dtype == jnp.int32
    assert 0 <= q.indices.min() and q.indices.max() < quantizer.size
    np.testing.assert_allclose(again, q.codes, atol=1e-6)
    assert np.abs(slope).max() > 0.01 and np.isfinite(slope).all()


def test_all_codes_of_fsq_are_different_and_are_their_own_numbers():
    quantizer = FSQ((3, 4, 5))
    numbers = jnp.arange(60)[:, None]
    codes = quantizer.codes({}, {}, numbers)
    assert len(np.unique(codes, axis=0)) == 60
    half = (np.array(quantizer.levels) - 1) * (1 + 1e-3) / 2
    offset = np.array([0, 0.5, 0])
    inverse = np.arctanh((np.array(codes) * np.array([1, 2, 2]) + offset) / half) - np.arctanh(offset / half)
    np.testing.assert_array_equal(quantizer({}, {}, jnp.asarray(inverse)).indices, numbers)


def test_rotation_turns_a_vector_onto_its_code_and_keeps_angles():
    z, e, other = jax.random.normal(KEY, (3, 5, 4))
    turn = jax.vmap(jax.jacobian(lambda z, e: rotated(z[None], e[None])[0]))(z, e)
    scale = length(e) / length(z)
    np.testing.assert_allclose(jnp.einsum("bij,bj->bi", turn, z), e, atol=1e-5)
    np.testing.assert_allclose(length(jnp.einsum("bij,bj->bi", turn, other)), scale * length(other), rtol=1e-5)


def clusters(n, centres):
    rng = np.random.default_rng(0)
    return jnp.asarray(centres[rng.integers(len(centres), size=n)] + 0.01 * rng.normal(size=(n, 2)), jnp.float32)


SIX = np.array([[0, 0], [3, 0], [0, 3], [-3, 0], [0, -3], [5, 5]], np.float32)


def in_order(codes):
    """Rows sorted by their values, near ones alike."""
    codes = np.asarray(codes)
    return codes[np.lexsort(np.round(codes).T)]


@functools.partial(jax.jit, static_argnums=0)
def learn(quantizer, params, stats, z, used, key):
    q = quantizer(params, stats, z)
    stats = quantizer.update(params, stats, z, q.indices, used, key)
    return quantizer.settle(params, stats), stats


@pytest.mark.parametrize("learned", [False, True])
def test_codes_begin_as_the_centres_of_the_data_that_are_used(learned):
    quantizer, z = VQ(6, 2, learned=learned), clusters(120, SIX)
    params, stats = quantizer.init(KEY)
    used = jnp.arange(120) < 100
    z = jnp.where(used[:, None], z, 100.0)
    params, stats = learn(quantizer, params, stats, z, used, KEY)
    codes = {**stats, **params}["codebook"]
    np.testing.assert_allclose(in_order(codes), in_order(SIX), atol=0.02)
    np.testing.assert_allclose(stats["count"], 100 / 6, rtol=1e-5)


@pytest.mark.parametrize("learned", [False, True])
def test_a_code_that_nothing_takes_becomes_a_vector_of_the_batch(learned):
    quantizer, z = VQ(6, 2, learned=learned, dead=0.5, decay=0.5), clusters(120, SIX)
    used = jnp.ones(120, bool)
    params, stats = learn(quantizer, *quantizer.init(KEY), z, used, KEY)
    book = {**stats, **params}["codebook"].at[2].set(50.0)
    params, stats = ({"codebook": book}, stats) if learned else ({}, {**stats, "codebook": book})
    for i in range(3):
        params, stats = learn(quantizer, params, stats, z, used, jax.random.key(i))
    code = {**stats, **params}["codebook"][2]
    assert np.abs(np.asarray(z) - np.asarray(code)).sum(-1).min() < 0.1


def test_averages_find_the_means_of_what_they_stand_for():
    quantizer, z = VQ(2, 1, dead=0.0, decay=0.5), jnp.array([[0.0], [1.0], [10.0], [14.0]])
    stats = {"count": jnp.ones(2), "codebook": jnp.array([[1.0], [9.0]]), "sum": jnp.array([[1.0], [9.0]])}
    for i in range(40):
        _, stats = learn(quantizer, {}, stats, z, jnp.ones(4, bool), jax.random.key(i))
    np.testing.assert_allclose(stats["codebook"], [[0.5], [12.0]], rtol=1e-4)


def test_more_stages_leave_less_over():
    quantizer, z = Residual(VQ(8, 2), 3), jax.random.normal(KEY, (200, 2))
    params, stats = quantizer.init(KEY)
    for i in range(3):
        params, stats = learn(quantizer, params, stats, z, jnp.ones(200, bool), jax.random.key(i))
    indices = quantizer(params, stats, z).indices
    part, errors = jnp.zeros_like(z), []
    for s in range(3):
        name = f"stage_{s}"
        part = part + quantizer.stage.codes(params[name], stats[name], indices[:, s : s + 1])
        errors.append(float(jnp.square(z - part).mean()))
    assert errors[0] < 0.5 and errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1]


def test_every_device_learns_the_same_codebook():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    quantizer, z = VQ(6, 2, dead=0.9), clusters(120, SIX)
    params, stats = quantizer.init(KEY)
    used = jnp.arange(120) % 7 > 0
    rows, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    each = jax.shard_map(
        functools.partial(learn, quantizer), mesh=mesh, in_specs=(whole, whole, rows, rows, whole), out_specs=whole
    )
    one, many = (jax.jit(f)(params, stats, z, used, KEY) for f in (functools.partial(learn, quantizer), each))
    np.testing.assert_allclose(*(in_order(s[1]["codebook"]) for s in (one, many)), atol=0.02)
    np.testing.assert_allclose(one[1]["count"], many[1]["count"], rtol=1e-6)


def test_usage():
    indices, used = jnp.array([0, 0, 1, 3, 2]), jnp.array([1, 1, 1, 1, 0], bool)
    found = usage(indices, used, 6)
    assert float(found["use"]) == pytest.approx(3 / 6)
    assert float(found["perplexity"]) == pytest.approx(np.exp(0.5 * np.log(2) + 0.5 * np.log(4)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FSQ(()), "FSQ: levels must be a tuple of whole numbers of at least 2, not ()"),
        (lambda: FSQ((8, 1)), "not (8, 1)"),
        (lambda: VQ(1), "VQ: size is 1, but must be at least 2"),
        (lambda: VQ(decay=1.0), "VQ: decay is 1.0, but must be from 0 to below 1"),
        (lambda: VQ(dead=-0.1), "VQ: dead is -0.1"),
        (lambda: Residual(VQ(), 0), "Residual: stages is 0"),
        (lambda: Residual(VQ(cosine=True)), "must be without cosine"),
    ],
)
def test_wrong_fields_are_named(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
