"""Texts, labels and vectors: ids and strings, padding that changes nothing, and a decoder that sees only the past."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow

from mmgen_jax.modalities import Bernoulli, Bytes, Categorical, Characters, Label, Text, Vector, Wordlist

KEY = jax.random.key(0)
AB = Text(6, vocabulary=Characters("ab"), features=4)


def parameters(network, *inputs):
    """Random ones from numpy, which saves compiling the initialisers."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, KEY, *inputs)
    return jax.tree.map(lambda p: jnp.asarray(0.5 * rng.normal(size=p.shape), p.dtype), shapes)


@functools.cache
def decode_ab():
    """A text decoder with its parameters in it."""
    network = AB.decoder_network(jnp.float32)
    return functools.partial(network.apply, parameters(network, jnp.zeros((1, 3)), jnp.zeros((1, 6), jnp.int32)))


def test_ids() -> None:
    np.testing.assert_array_equal(AB.encode("aba"), [2, 3, 2, 1, 0, 0])
    np.testing.assert_array_equal(AB.encode(""), [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(AB.encode("aaaaa"), [2, 2, 2, 2, 2, 1])  # the longest
    np.testing.assert_array_equal(Text(4, vocabulary=Bytes()).encode("é"), [0xC3 + 2, 0xA9 + 2, 1, 0])
    assert (AB.ids, Text(4).ids, Text(4, vocabulary=Bytes()).ids) == (4, 97, 258)


def test_strings_of_every_type() -> None:
    for raw in ("ab", b"ab", np.str_("ab"), np.bytes_(b"ab")):
        np.testing.assert_array_equal(AB.encode(raw), AB.encode("ab"))


def test_decode_stops_at_the_end_or_at_padding() -> None:
    assert AB.decode([2, 3, 1, 2, 2, 2]) == "ab"
    assert AB.decode([2, 0, 3, 1, 0, 0]) == "a"
    assert AB.decode([3, 3, 3, 3, 3, 3]) == "bbbbbb"  # an end was never drawn
    assert Text(3, vocabulary=Bytes()).decode([0xC3 + 2, 1, 0]) == "\ufffd"


def test_log_prob_is_the_sum_up_to_the_end() -> None:
    logits = jax.random.normal(KEY, (2, 6, AB.ids))
    x = jnp.asarray([AB.encode("ab"), AB.encode("aaaaa")])
    log_p = jax.nn.log_softmax(logits)
    expected = [log_p[0, 0, 2] + log_p[0, 1, 3] + log_p[0, 2, 1], sum(log_p[1, i, x[1, i]] for i in range(6))]
    np.testing.assert_allclose(AB.log_prob(lambda z, tokens: logits, None, x), expected, rtol=1e-5)


def test_padding_does_not_matter() -> None:
    """Neither logits at padding nor a longer array change the value; logits there have no gradient."""
    logits = jax.random.normal(KEY, (1, 6, AB.ids))
    x = jnp.asarray(AB.encode("ab"))[None]

    def log_p(logits: jax.Array) -> jax.Array:
        return AB.log_prob(lambda z, tokens: logits, None, x)[0]

    value, gradient = jax.jit(jax.value_and_grad(log_p))(logits)
    assert log_p(logits.at[:, 3:].set(1e4)) == value
    assert not gradient[:, 3:].any() and gradient[:, :3].any(axis=-1).all()
    short = Text(3, vocabulary=AB.vocabulary).log_prob(lambda z, tokens: logits[:, :3], None, x[:, :3])
    assert short[0] == pytest.approx(float(value))


def test_the_encoder_does_not_see_padding() -> None:
    long, short = AB.encode("ab"), Text(4, vocabulary=AB.vocabulary).encode("ab")
    network = AB.encoder_network(3, jnp.float32)
    params = parameters(network, jnp.asarray(long)[None])
    cut = jax.tree.map(lambda p: p[:4] if p.shape == (6, 4) else p, params)  # the table of positions
    features = jax.jit(network.apply)
    np.testing.assert_allclose(features(params, long[None]), features(cut, short[None]), rtol=1e-5, atol=1e-6)


def test_the_decoder_sees_the_past_only() -> None:
    """By value: changing token j changes logits after j, and none up to j."""
    x = jnp.asarray(AB.encode("abab"))[None]
    z = jnp.ones((1, 3))
    logits = jax.jit(decode_ab())
    base = logits(z, x)
    for j in range(5):
        moved = np.abs(logits(z, x.at[0, j].set(5 - x[0, j] if j < 4 else 2)) - base).max(axis=(0, 2)) > 1e-6
        np.testing.assert_array_equal(moved, np.arange(6) > j)


def test_texts_sum_to_one() -> None:
    """All 1 + 2 + ... + 32 texts of up to five characters, and the unfinished ones of six, have probability 1."""
    z = jnp.ones((1, 3))
    texts = [[]]
    for _ in range(6):
        texts += [t + [i] for t in texts if len(t) == len(texts[-1]) for i in (2, 3)]
    x = np.array([(t + [1] + [0] * 6)[:6] for t in texts], np.int32)
    assert len(x) == 127
    score = jax.jit(lambda x: AB.log_prob(decode_ab(), jnp.broadcast_to(z, (len(x), 3)), x))
    assert np.exp(score(x)).sum() == pytest.approx(1, abs=1e-4)


def test_generated_texts_have_the_probabilities_of_log_prob() -> None:
    z = jnp.ones((4096, 3))
    made = np.asarray(jax.jit(lambda key: AB.generate(decode_ab(), z, key))(KEY))
    score = jax.jit(lambda x: AB.log_prob(decode_ab(), jnp.ones((len(x), 3)), x))
    texts, counts = np.unique(made, axis=0, return_counts=True)
    common = counts.argsort()[-5:]
    expected = 4096 * np.exp(score(texts[common]))
    np.testing.assert_allclose(counts[common], expected, atol=5 * np.sqrt(expected.max()))
    ended = np.cumsum(made == 1, axis=1) - (made == 1) > 0
    np.testing.assert_array_equal(made[ended], 0)  # after the end only padding


def test_label() -> None:
    label = Label(3, names=("cat", "dog", "owl"))
    for raw in ("dog", b"dog", 1, np.int64(1), np.uint8(1), np.array(1), jnp.asarray(1)):
        x = label.encode(raw)
        assert x == 1 and x.dtype == np.int32 and x.shape == ()
    assert label.decode(np.int32(2)) == "owl" and Label(3).decode(np.int32(2)) == 2
    assert label.render(0).data == b"cat" and Label(3).render(0).data == b"0"


def test_vector() -> None:
    vector = Vector(3)
    for raw in ([1, 2, 3], (1.0, 2.0, 3.0), np.arange(1, 4), jnp.asarray([1, 2, 3], jnp.bfloat16)):
        np.testing.assert_array_equal(vector.encode(raw), np.float32([1, 2, 3]))
    np.testing.assert_array_equal(vector.decode(jnp.arange(3)), [0, 1, 2])


def test_vector_is_drawn_as_bars() -> None:
    picture = np.asarray(Pillow.open(io.BytesIO(Vector(3).render(np.float32([2, -1, 0])).data)))
    assert picture.shape == (104, 32)
    heights = (picture[:, [7, 15, 23]] == 0).sum(axis=0) - 1  # the zero line itself is one pixel
    np.testing.assert_array_equal(heights, [48, 24, 0])
    assert picture[20, 7] == 0 and picture[20, 15] == 255 and picture[70, 15] == 0  # up, and down


VECTOR = "Vector: one example has shape (3,), but the array has "


@pytest.mark.parametrize(
    "modality, raw, sentence",
    [
        (Text(9, vocabulary=Wordlist(("a", "."))), "a b.", "Wordlist: 'b' in 'a b.' is none of the 2 words: a ."),
        (AB, "abc", "Characters: 'c' in 'abc' is not in the alphabet 'ab'."),
        (AB, "ababab", "Text: 'ababab' has 6 tokens, but length=6 leaves room for 5."),
        (AB, 3, "Text: a text must be a str or bytes, not int."),
        (Label(3, names=("a", "b", "c")), "d", "Label: 'd' is none of the names ('a', 'b', 'c')."),
        (Label(3), "a", "Label: 'a' is none of the names ()."),
        (Label(3), 3, "Label: a class must be a whole number from 0 to 2, not 3."),
        (Label(3), -1, "Label: a class must be a whole number from 0 to 2, not -1."),
        (Label(3), 1.0, "Label: a class must be a whole number from 0 to 2, not 1.0."),
        (Label(3), True, "Label: a class must be a whole number from 0 to 2, not True."),
        (Label(3), [1], "Label: one example has shape (), but the array has (1,)."),
        (Vector(3), [1, 2], VECTOR + "(2,)."),
        (Vector(3), np.zeros((3, 1)), VECTOR + "(3, 1)."),
        (Vector(3), [1, 2, np.nan], "Vector: values must be finite, but some are NaN or infinite."),
        (Vector(3), [1, 2, -np.inf], "Vector: values must be finite, but some are NaN or infinite."),
        (Vector(3), ["a", "b", "c"], "Vector: values must be real numbers, not <U1."),
        (Vector(3), np.zeros(3, complex), "Vector: values must be real numbers, not complex128."),
        (
            Vector(3, likelihood=Bernoulli()),
            [0, 1, 0.5],
            "Vector: the Bernoulli likelihood needs values of 0 or 1 only.",
        ),
    ],
)
def test_errors(modality, raw, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        modality.encode(raw)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("ids", [[4, 1, 0, 0, 0, 0], [-1, 1, 0, 0, 0, 0]])
def test_errors_of_ids(ids: list[int]) -> None:
    with pytest.raises(ValueError) as caught:
        AB.decode(ids)
    assert str(caught.value) == f"Text: ids must be from 0 to 3, but these run from {min(ids)} to {max(ids)}."


def test_the_likelihood_follows_from_the_fields() -> None:
    assert AB.likelihood == Categorical(4, ignore=0) and Label(3).likelihood == Categorical(3)
