"""Who looks at whom: hand-made weights, networks that look everywhere alike, and nothing where nobody asks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import path_aware_map
from vae_cases import random_batch

from mmgen_jax.diffusion import Flow
from mmgen_jax.gan import GAN
from mmgen_jax.latent import Latent
from mmgen_jax.modalities import Audio, Image, Label, Text, Vector, Wordlist
from mmgen_jax.nn.dit import DiTBlock, Stack
from mmgen_jax.nn.watching import SOWN, arranged, shares
from mmgen_jax.tokens import FSQ, Tokenizer, Tokens
from mmgen_jax.types import Batch
from mmgen_jax.vae import VAE

KEY = jax.random.key(0)
VECTOR = Vector(3, features=8)
PARTS = {"sound": Audio(64, rate=64, mels=2, window=32, hop=16, patch=1), "label": Label(5), "vector": VECTOR}
FLOW = Flow(modalities=PARTS, width=16, joint=1, depth=2, heads=2, steps=2)
CODER = Tokenizer(modalities={"vector": VECTOR}, cells={"vector": (4,)}, quantizer=FSQ((3, 2)))
SYMBOLS = {"text": Text(5, vocabulary=Wordlist(("a", "b", "c"))), "label": Label(3), "vector": VECTOR}
TOKENS = Tokens(modalities=SYMBOLS, first={"vector": CODER}, width=16, depth=2, heads=4, groups=2)


@functools.cache
def variables(model):
    params, stats = jax.jit(model.init)(KEY)
    return {"params": jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params), **stats}


def blind(variables):
    """With queries of zeros, every key is looked at alike."""

    def zeroed(path, x):
        return jnp.zeros_like(x) if {"qkv", "q", "q_norm"} & set(path) else x

    return {**variables, "params": path_aware_map(zeroed, variables["params"])}


def test_shares_are_sums_over_keys_and_means_over_queries():
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (2, 3, 5)).astype(np.float32)  # two blocks, three examples
    found = shares({"a": {"layers": {"attention_weights": (weights,)}}}, ["a"], [2, 3])
    assert found.shape == (3, 2, 2, 2)
    np.testing.assert_allclose(found[1, 0, 1, 0], weights[0, 1, 2:, :2].sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    rows = {"b": found[:, :, 1], "a": found[:, :, 0]}  # columns are of a, b
    np.testing.assert_allclose(arranged(rows, ["b", "a"])[1, 0], found[1, 0, ::-1, ::-1], rtol=1e-6)


@pytest.mark.parametrize("model", [FLOW, TOKENS], ids=["flow", "tokens"])
def test_maps_are_rows_of_shares(model):
    batch = random_batch(model.modalities, 2)
    maps = model.attention_maps(variables(model), batch, KEY)
    blocks = 3 if model is FLOW else 2
    assert maps.shape == (2, blocks, 3, 3)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-4)
    assert np.std(maps, axis=(0, 1)).min() > 0  # it depends on the example and the block


def test_a_flow_that_looks_everywhere_alike():
    maps = FLOW.attention_maps(blind(variables(FLOW)), random_batch(PARTS, 2), KEY)
    counts = FLOW.token_counts()
    assert counts == {"sound": 5, "label": 1, "vector": 1}
    expected = np.array([counts[name] / 7 for name in PARTS])
    np.testing.assert_allclose(maps, np.broadcast_to(expected, maps.shape), rtol=1e-4)


def test_tokens_that_look_everywhere_alike():
    maps = TOKENS.attention_maps(blind(variables(TOKENS)), random_batch(SYMBOLS, 1), KEY)[0, 0]
    assert TOKENS.token_counts() == {"text": 6, "label": 2, "vector": 5}
    np.testing.assert_allclose(maps[2], [6 / 13, 2 / 13, 5 / 13], rtol=1e-4)  # filled in: sees all of its masks
    seen = 7 + 1 + np.arange(6)  # written: slot i sees the prefix of 7 and the slots before it
    np.testing.assert_allclose(maps[0], [1 - (7 / seen).mean(), (2 / seen).mean(), (5 / seen).mean()], rtol=1e-4)
    batch = random_batch(SYMBOLS, 1)
    without = Batch(batch.values, {**batch.present, "label": np.zeros(1, bool)})
    maps = TOKENS.attention_maps(blind(variables(TOKENS)), without, KEY)[0, 0]
    np.testing.assert_allclose(maps[2], [6 / 11, 0, 5 / 11], atol=1e-6)


def test_what_is_given_is_looked_at_and_order_changes_nothing():
    batch = random_batch(PARTS, 2)
    turned = Flow(**{**FLOW.__dict__, "modalities": {name: PARTS[name] for name in ("vector", "sound", "label")}})
    maps, other = (m.attention_maps(variables(FLOW), batch, KEY) for m in (FLOW, turned))
    order = np.array([1, 2, 0])  # of (vector, sound, label) in `other`, those of (sound, label, vector)
    np.testing.assert_allclose(maps, other[:, :, order][..., order], rtol=1e-4, atol=1e-6)


def test_a_model_of_codes_has_the_maps_of_the_flow_within():
    first = VAE(modalities={"image": Image(6, 4, 1, features=2)}, latent=4)
    parts = {"image": Vector(4), "label": Label(3)}
    flow = Flow(modalities=parts, width=16, joint=0, depth=1, heads=2, steps=2)
    model = Latent(second=flow, first={"image": first})
    params, stats = jax.jit(model.init)(KEY)
    maps = model.attention_maps({"params": params, **stats}, random_batch(model.modalities, 2), KEY)
    assert maps.shape == (2, 1, 2, 2) and model.token_counts() == {"image": 1, "label": 1}
    assert Latent(second=GAN(modalities=parts), first={"image": first}).token_counts() == {}


def test_nothing_is_sown_where_nobody_asks():
    network, (x, c) = Stack(DiTBlock(heads=2), 2), jax.random.normal(KEY, (2, 1, 4, 8))
    params = network.init(KEY, x, c)
    assert set(params) == {"params"}
    out, (watched, sown) = network.apply(params, x, c), network.apply(params, x, c, mutable=[SOWN])
    np.testing.assert_array_equal(out, watched)
    assert shares({"stack": sown[SOWN]}, ["stack"], [1, 3]).shape == (1, 2, 2, 2)
