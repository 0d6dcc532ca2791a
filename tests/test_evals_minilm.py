"""The sentence encoder: its published size, how words are cut, and, where its weights are installed, what it knows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, Model, data

from mmgen_jax.evals import Distances, MiniLM, Retrieval, minilm
from mmgen_jax.evals.metrics import alignment
from mmgen_jax.evals.pretrained import shapes
from mmgen_jax.modalities import Text

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cafe", "play", "##ing", "##in", "##g", "!", "_"]
NUMBERS = {piece: i for i, piece in enumerate(PIECES)}


def test_the_published_number_of_parameters():
    found = shapes(minilm.network, jax.ShapeDtypeStruct((2, 7), jnp.int32))
    pooler = 384 * 384 + 384  # in the file, but not asked for
    assert sum(map(math.prod, found.values())) == 22_713_216 - pooler
    zeros = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in found.items()}
    seen = jax.eval_shape(minilm.look, zeros, jax.ShapeDtypeStruct((2, 7), jnp.int32))
    assert seen["features"].shape == (2, 384)


def test_words_are_cut_into_the_longest_pieces():
    def cut(text):
        return [PIECES[i] for i in minilm.encode(text, NUMBERS)]

    assert cut("A Café!") == ["[CLS]", "a", "cafe", "!", "[SEP]"]
    assert cut("playing_played") == ["[CLS]", "play", "##ing", "_", "[UNK]", "[SEP]"]
    assert cut("") == ["[CLS]", "[SEP]"]
    assert cut("a " * 500) == ["[CLS]", *["a"] * 126, "[SEP]"]
    assert minilm.padded([[2, 4, 3], [2, 4, 4, 4, 3]]).tolist() == [[2, 4, 3, *[0] * 5], [2, 4, 4, 4, 3, *[0] * 3]]


def test_only_texts_are_read(tmp_path):
    with pytest.raises(ValueError, match="MiniLM reads texts, but 'label' is Label"):
        MiniLM().fit("label", MODALITIES["label"], data(tmp_path), "")
    with pytest.raises(ValueError, match=r"Retrieval: only has \['x'\]"):
        Retrieval(only=("x",))(Model(), {}, data(tmp_path), None)


@pytest.fixture(scope="module")
def installed():
    try:
        return minilm.load()
    except RuntimeError as error:
        pytest.skip(str(error))


def test_sentences_that_say_the_same_are_near(installed, tmp_path):
    text = Text(length=40)
    pairs = [("a photo of a cat", "a kitten sleeping"), ("a handwritten seven", "the digit 7")]
    judge = MiniLM().fit("text", text, data(tmp_path), "")
    a, b = (judge.features(np.stack([text.encode(p[i]) for p in pairs])) for i in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, rtol=1e-5)
    assert alignment(a, b) > alignment(a, b[::-1]) + 0.2
    one = judge.features(text.encode(pairs[0][0])[None])
    np.testing.assert_allclose(one, a[:1], atol=1e-5)  # the same alone, and however long the others are


def test_texts_have_distances_and_are_found_again(installed, tmp_path):
    world, few = data(tmp_path), {"extractor": MiniLM(), "only": ("text",), "limit": 12}
    values = Distances(("mind",), halves=0, **few)(Model(), {}, world, jax.random.key(0))
    assert list(values) == ["mind/text", "mind/text/floor"]
    assert values["mind/text/floor"] < values["mind/text"]  # "what?" stands in no test text
    values = Retrieval((1,), **few)(Model(), {}, world, jax.random.key(0))
    assert {name.partition("->")[2].partition("/")[0] for name in values} == {"text"}
