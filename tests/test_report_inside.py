"""The report's sections about the inside of a model: where it looks, what answers follow, what it expected."""

import dataclasses
import html
import re

import jax.numpy as jnp
import numpy as np
import pytest
from report_fakes import MODALITIES, Fake, Tags, collected, written_run

from mmgen_jax.modalities import Bytes, Text, Wordlist
from mmgen_jax.report.contents import Contents
from mmgen_jax.report.evidence import flat
from mmgen_jax.report.evidence_sections import evidence as evidence_section
from mmgen_jax.report.looking import Looks
from mmgen_jax.report.looking_sections import inside
from mmgen_jax.report.page import page
from mmgen_jax.report.surprise import pieces
from mmgen_jax.report.surprise_sections import expected
from mmgen_jax.types import Batch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return written_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def contents(run) -> Contents:
    return collected(run, Fake())


class Attentive(Fake):
    def token_counts(self):
        return dict(zip(self.modalities, (4, 32, 8, 4, 2), strict=True))

    def attention_maps(self, variables, batch, key):
        return jnp.tile(jnp.eye(5)[None, None], (len(batch), 3, 1, 1))


def test_where_it_looks_and_what_answers_follow(run, contents):
    looks = collected(run, Attentive()).looks
    assert looks.examples == 10 and looks.tokens["text"] == 32
    np.testing.assert_array_equal(looks.attention, np.eye(5))
    shown = inside(list(MODALITIES), looks)
    assert "making text" in shown and "64.0 %" in shown  # 32 of 50 tokens
    assert "without &lt;b&gt;" in inside(["<b>", "c", "d"], dataclasses.replace(looks, attention=None))
    # A fake that answers always the same follows nothing, and has no attention.
    assert contents.looks.attention is None and set(contents.looks.follows.values()) == {0.0}
    assert "Where it looks" not in page(contents) and "What answers follow" in page(contents)
    assert inside(["a"], Looks(1, {}, None, {})) == ""


class Answering(Fake):
    """The more probable an answer, the larger the sum of the sound and of the upper half of the picture."""

    def log_predictive(self, variables, batch, key, of, draws=None):
        assert of == "label"
        image = batch.values["image"][:, :2].sum((1, 2, 3)) - batch.values["image"][:, 2:].sum((1, 2, 3)) / 2
        return jnp.where(batch.present["image"], image, 0) + batch.values["clip"].sum((1, 2, 3, 4))


def test_what_speaks_for_the_answer(run, contents):
    found = collected(run, Answering())
    assert found.evidence.of == "label" and set(found.evidence.shares) == {"image", "clip"}  # a waveform is no map
    whole = np.stack([found.evidence.shares["image"][i][..., 0] for i in range(3)])
    values = np.asarray(found.real.values["image"][:3, ..., 0])
    slope = np.array([1, 1, -0.5, -0.5])[None, :, None]
    away = whole / slope  # x minus the mean of ten examples
    np.testing.assert_allclose(away - away[:1], values - values[:1], atol=1e-5)
    np.testing.assert_array_equal(found.evidence.shares["clip"], 0)
    shown = evidence_section(found)
    Tags(shown)
    assert shown.count('alt="evidence"') == 6 and f"{whole[0].sum():+.1f}" in shown and "cat &amp; dog" in shown
    assert page(found).count("What speaks for the answer") == 1
    lacking = Batch(found.real.values, {**found.real.present, "label": np.arange(len(found.real)) == 1})
    assert evidence_section(dataclasses.replace(found, real=lacking)).count('alt="evidence"') == 2
    nothing = Batch(found.real.values, {**found.real.present, "label": np.zeros(len(found.real), bool)})
    assert evidence_section(dataclasses.replace(found, real=nothing)) == ""
    assert contents.evidence is None and "What speaks" not in page(contents)
    spectrum = np.arange(6.0).reshape(3, 2)  # frames, bands
    np.testing.assert_array_equal(flat(spectrum), [[1, 3, 5], [0, 2, 4]])
    np.testing.assert_array_equal(flat(np.ones((4, 3, 2, 5))), np.full((3, 2), 20))


class Predictive(Fake):
    """Two symbols of a nat in each cell; a text's are of as many nats as their numbers."""

    def cells(self, name):
        return {"text": (32,), "label": (), "image": (2, 3), "clip": (2, 2, 1), "sound": (4,)}[name]

    def surprise(self, variables, batch, of):
        count = int(np.prod(self.cells(of)))
        return jnp.tile(jnp.arange(32.0) if of == "text" else jnp.ones(2 * count), (len(batch), 1))


def test_symbols_that_were_not_expected_are_coloured(run, contents):
    collected_here = collected(run, Predictive())
    shapes = {name: x.shape for name, x in collected_here.surprises.items()}
    assert shapes == {n: (3, *Predictive().cells(n)) for n in MODALITIES}
    np.testing.assert_array_equal(collected_here.surprises["clip"], 2)
    shown = expected(collected_here)
    Tags(shown)
    examples = [re.findall(r'title="(.*?)">(.*?)</span>', part) for part in shown.split('class="text nats"')[1:]]
    for found, real in zip(examples, collected_here.real.values["text"][:3], strict=True):
        words = found[: found.index(next(pair for pair in found if pair[1] == "¶")) + 1]
        text = MODALITIES["text"].decode(real)
        assert "".join(html.unescape(word) for _, word in words) == text + "¶"
        assert [float(nats) for nats, _ in words[:-1]] == list(range(len(text)))
        assert float(words[-1][0]) == sum(range(len(text), 32))
    assert shown.count("<rect") == 3 * (6 + 4) + 2 * 4  # only two of the three have a sound
    assert shown.count("cat &amp; dog</span>") + shown.count("&lt;b&gt;</span>") == 2 * 3  # the true one, and coloured
    assert "<td>496.0</td>" in shown and "<td>12.0</td>" in shown and 'opacity="0.44"' in shown  # 2 of 5 nats
    assert page(collected_here).count("What it expects") == 1 and "What it expects" not in page(contents)
    assert contents.surprises == {} and expected(contents) == ""


def test_bytes_of_one_character_are_one_piece():
    text = Text(8, vocabulary=Bytes())
    found = pieces(text, text.encode("né!"), np.array([1, 2, 3, 4, 5, 0, 0, 0.0]))
    assert found == [("n", 1), ("é", 5), ("!", 4), ("", 5)]
    words = Text(4, vocabulary=Wordlist(("a", "b", ".")))
    assert [piece for piece, _ in pieces(words, words.encode("a b."), np.ones(4))] == ["a", " b", ".", ""]
