"""What is given and how it is used: attention to its parts, and terms that parts tell of one another."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from vae_cases import random_batch

from mmgen_jax.gan import DCGAN, GAN, cooperation, game
from mmgen_jax.modalities import Label, Text, Vector
from mmgen_jax.types import Batch

PARTS = {"label": Label(4, features=4), "text": Text(5, features=8), "vector": Vector(3, features=4)}
THREE = {"label": Label(4, features=4), "other": Vector(2, features=4), "vector": Vector(3, features=4)}
SMALL = GAN(modalities=PARTS, noise=4, own=2, width=8, networks=DCGAN(), penalties=())
ATTENDS = dataclasses.replace(SMALL, condition="attention")
KEY, N = jax.random.key(1), 6


@functools.cache
def params(model):
    return jax.jit(lambda key: model.init(key)[0])(KEY)


def styles(batch):
    """What drives every network, less the noise that is its own, and h, the same before anything is read."""
    return read(params(ATTENDS)["generator"], batch)


@jax.jit
def read(weights, batch):
    noise = ATTENDS.drawn(KEY, len(batch))
    driven, h = (ATTENDS.generator(weights, m)(noise, batch.values, batch.present) for m in ("styles", "code"))
    return {name: style[:, : ATTENDS.width] for name, style in driven.items()}, h


def given(*names):
    """The same values everywhere, of which these are given."""
    values = random_batch(PARTS, N).values | {"text": np.arange(5 * N, dtype=np.int32).reshape(N, 5)}
    return Batch(values, {name: np.full(N, name in names) for name in PARTS})


def test_attention_is_a_mean_of_what_is_given():
    """Equation (2) of `attending.py`, by hand, for one example of which the sentence and the vector are given."""
    batch = given("text", "vector")
    (found, h), noise = styles(batch), ATTENDS.drawn(KEY, N)
    reader = jax.tree.map(np.asarray, params(ATTENDS)["generator"]["reader"])
    vector = reader["embeddings_vector"]["Dense_0"]
    numbers = batch.values["vector"][:1] @ vector["kernel"] + vector["bias"]
    tokens = {"text": reader["embeddings_text"]["Embed_0"]["embedding"][batch.values["text"][0]], "vector": numbers}
    for name, t in tokens.items():
        tokens[name] = t / np.sqrt((t**2).mean(-1, keepdims=True) + 1e-6) + reader[f"places_{name}"]
    t = np.concatenate(list(tokens.values()))
    k, v = (np.einsum("td,dhe->the", t, reader[name]["kernel"]) for name in ("key", "value"))
    for name in PARTS:
        code, query = np.concatenate([h[0], noise[name][0]]), reader[f"queries_{name}"]
        alike = np.einsum("d,dhe,the->ht", code, query["kernel"], k) / np.sqrt(32)
        share = np.exp(alike) / np.exp(alike).sum(-1, keepdims=True)
        read = np.einsum("ht,the,hed->d", share, v, reader[f"outs_{name}"]["kernel"])
        np.testing.assert_allclose(found[name][0], h[0] + read, rtol=1e-4, atol=1e-5)


def test_what_is_not_given_is_not_attended_to():
    found, h = styles(given())
    for name, style in found.items():
        np.testing.assert_array_equal(style, h, err_msg=name)
    one = given("vector")
    other = Batch({**one.values, "text": one.values["text"] + 1}, one.present)
    (found, h), again = styles(one), styles(other)
    jax.tree.map(np.testing.assert_array_equal, (found, h), again)
    assert all(np.abs(style - h).max() > 1e-3 for style in found.values())


def test_every_word_is_read_at_its_place():
    text = given("text")
    turned = Batch({**text.values, "text": text.values["text"][:, ::-1]}, text.present)
    (found, h), (others, g) = styles(text), styles(turned)
    assert np.abs((found["vector"] - h) - (others["vector"] - g)).max() > 1e-4


def test_contrast_of_real_and_made_examples():
    """Equations (4) and (5) of `cooperation.py`, over the examples that count, picked out and by themselves."""
    model = dataclasses.replace(ATTENDS, modalities=THREE, contrastive=2.0, weights={"vector": 0.5})
    weights, batch = params(model), random_batch(THREE, 32, present=0.9).masked()

    @functools.partial(jax.grad, has_aux=True)
    def played(makers):
        play = game.played(model, makers, batch, KEY, {})
        judge = functools.partial(model.judge, weights["critic"])
        real, fake = (judge("features")(side) for side in (play.real, play.fake))
        critics = cooperation.of_critics(model, weights["critic"], play, real)
        generator = cooperation.of_generator(model, weights["critic"], play, real, fake)
        return generator[0], (play, judge("embeddings")(real), judge("embeddings")(fake), critics, generator)

    grads, (play, x, y, critics, generator) = jax.jit(played)(weights["generator"])
    still = [
        jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(grads["reader"]) if not g.any()
    ]
    assert not still
    made = {name: np.asarray(play.judged(name)) for name in THREE}
    told = np.stack(list(play.given.values())).any(0)

    def mean(a, b, there):
        """Of equation (2) of `contrastive.py`: which of the examples that are there is which, both ways."""
        a, b = (np.asarray(e)[there] / np.linalg.norm(np.asarray(e)[there], axis=1, keepdims=True) for e in (a, b))
        alike = 10 * a @ b.T
        return np.mean(sum(np.log(np.exp(alike).sum(i)) for i in (0, 1)) - 2 * np.diag(alike))

    def pairs(e, seen):
        both = [(m, n, np.asarray(play.present[m] & play.present[n])) for m, n in itertools.combinations(THREE, 2)]
        return sum(mean(e[m], e[n], there & np.asarray(seen[m] | seen[n])) for m, n, there in both)

    wanted = pairs(x, play.present)
    np.testing.assert_allclose(critics[0], 2 * wanted, rtol=1e-4)
    np.testing.assert_allclose(critics[1]["contrast"], wanted, rtol=1e-4)
    wanted = pairs(y, made) + sum(model.weight(m) * mean(y[m], x[m], made[m] & told) for m in THREE)
    np.testing.assert_allclose(generator[0], 2 * wanted, rtol=1e-4)
    np.testing.assert_allclose(generator[1]["generator/contrast"], wanted, rtol=1e-4)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(condition="adding"), "condition is 'adding', but must be \"concatenation\", or"),
        (dict(condition="attention", modalities={"a": Vector(2)}), 'or "attention" with several modalities'),
        (dict(contrastive=-1.0), "contrastive is -1.0, but must be at least 0"),
        (dict(contrastive=1.0, modalities={"a": Vector(2)}), "and 0 with a single modality"),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **fields)
