"""Masks mean what they say, the cache changes nothing but speed, and patches come back where they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.nn.embed import PatchEmbed, PatchHead, patch_positions, patchify, unpatchify
from mmgen_jax.nn.transformer import END, PADDING, TextDecoder, TextEncoder, attend


def decoder(layers: int = 2, length: int = 7, vocabulary: int = 9):
    network = TextDecoder(vocabulary, length, features=64, layers=layers)
    z = jax.random.normal(jax.random.key(0), (3, 5))
    tokens = jax.random.randint(jax.random.key(1), (3, length), 2, vocabulary)
    return network, network.init(jax.random.key(2), z, tokens), z, tokens


def test_attention_of_a_row_that_sees_nothing_is_zero_and_others_are_the_weighted_mean():
    q, k, v = (jax.random.normal(jax.random.key(i), (1, 2, 1, 4)) for i in range(3))
    mask = jnp.array([[[True, False], [False, False]]])
    out = attend(q, k, v, mask)
    np.testing.assert_allclose(out[0, 0], v[0, 0], rtol=1e-6)
    np.testing.assert_array_equal(out[0, 1], jnp.zeros((1, 4)))
    full = attend(q, k, v, jnp.ones((1, 2, 2), bool))
    weights = jax.nn.softmax(q[0, :, 0] @ k[0, :, 0].T / 2, axis=-1)
    np.testing.assert_allclose(full[0, :, 0], weights @ v[0, :, 0], rtol=1e-5)


def test_decoder_is_causal_by_gradient():
    network, params, z, _ = decoder(length=7, vocabulary=9)
    order = jnp.arange(7)[None] + 2  # each symbol stands at one position, so a symbol's gradient is a position's

    def logits(table):
        moved = jax.tree.map(lambda x: x, params)
        moved["params"]["embed"]["TokenEmbed_0"]["Embed_0"]["embedding"] = table
        return network.apply(moved, z[:1], order)[0, :, 1:].sum(axis=-1)  # padding is never predicted

    table = params["params"]["embed"]["TokenEmbed_0"]["Embed_0"]["embedding"]
    jacobian = jax.jit(jax.jacrev(logits))(table)  # [position, place and symbol, width]
    seen = (jnp.abs(jacobian).sum(axis=-1).reshape(7, -1, 9).sum(axis=1) > 1e-9)[:, 2:]
    np.testing.assert_array_equal(seen, np.tril(np.ones((7, 7), bool), k=-1))


@pytest.mark.parametrize("layers", [1, 2])
def test_generation_with_its_cache_is_the_greedy_choice_of_the_full_forward_pass(layers):
    network, params, z, _ = decoder(layers)
    tokens = network.apply(params, z, None, method="generate")
    best = jnp.argmax(network.apply(params, z, tokens), axis=-1)
    ended = jnp.cumsum(tokens == END, axis=1) - (tokens == END) > 0
    np.testing.assert_array_equal(tokens, jnp.where(ended, PADDING, best))


def test_nothing_but_padding_follows_the_end_and_none_comes_before():
    network, params, _, _ = decoder(vocabulary=4)
    z = jax.random.normal(jax.random.key(5), (64, 5))
    tokens = np.asarray(network.apply(params, z, jax.random.key(3), method="generate"))
    after = np.cumsum(tokens == END, axis=1) - (tokens == END) > 0
    assert after.any() and (tokens[after] == PADDING).all() and (tokens[~after] != PADDING).all()


def test_probabilities_of_all_texts_sum_to_one():
    network, params, z, _ = decoder(vocabulary=4, length=3)
    symbols = np.array([[a, b, c] for a in range(1, 4) for b in range(1, 4) for c in range(1, 4)])
    logits = network.apply(params, jnp.tile(z[:1], (27, 1)), symbols)
    total = jnp.take_along_axis(jax.nn.log_softmax(logits), symbols[..., None], axis=-1).sum(axis=(1, 2))
    np.testing.assert_allclose(jnp.exp(total).sum(), 1, rtol=1e-5)


def test_encoder_does_not_see_what_padding_is_made_of():
    network = TextEncoder(9, 4, features=32)
    tokens = jnp.array([[3, 4, 1, 0, 0]])
    params = network.init(jax.random.key(0), tokens)
    long = jnp.array([[3, 4, 1, 0, 0]])
    np.testing.assert_array_equal(network.apply(params, tokens), network.apply(params, long))
    moved = jax.tree.map(lambda x: x, params)
    moved["params"]["positions"] = moved["params"]["positions"].at[3:].set(100.0)
    np.testing.assert_allclose(network.apply(params, tokens), network.apply(moved, tokens), rtol=1e-6)
    assert bool(jnp.isfinite(network.apply(params, jnp.zeros((2, 5), jnp.int32))).all())


@pytest.mark.parametrize(("space", "patch"), [((6,), (2,)), ((5, 7), (2, 3)), ((3, 4, 5), (2, 2, 2))])
def test_patches_come_back_where_they_were(space, patch):
    x = jax.random.normal(jax.random.key(0), (2, *space, 3))
    np.testing.assert_array_equal(unpatchify(patchify(x, patch), patch, space), x)
    tokens = PatchEmbed(patch, 8).init_with_output(jax.random.key(1), x)[0]
    assert tokens.shape == (2, len(patch_positions(space, patch, (1.0,) * len(space))), 8)
    assert PatchHead(patch, (*space, 3)).init_with_output(jax.random.key(2), tokens)[0].shape == x.shape


def test_positions_are_patch_centres_in_the_unit_of_the_spacing():
    np.testing.assert_allclose(patch_positions((4,), (2,), (0.5,)), [[0.25], [1.25]])
    np.testing.assert_allclose(patch_positions((2, 2), (1, 2), (1, 1)), [[0, 0.5], [1, 0.5]])
