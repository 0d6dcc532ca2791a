"""The report: loads nothing, escapes everything, shows what was there."""

import dataclasses
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from report_fakes import ATTACK, MODALITIES, Fake, Source, Tags, collected, written_run

from mmgen_jax.report import contents as report_contents
from mmgen_jax.report.cells import cell
from mmgen_jax.report.contents import Contents, complete, draw
from mmgen_jax.report.latent_sections import coloured, latent_space
from mmgen_jax.report.latents import MOVES, WAY, Panel, principal
from mmgen_jax.report.page import duration, page, write
from mmgen_jax.report.plots import COLOURS, short
from mmgen_jax.types import Rendering


class Coded(Fake):
    """Its code is [ten times the brightness, -1 or 1 by the class, 0], with a private one of the text."""

    def __init__(self, *names):
        self.modalities = {name: MODALITIES[name] for name in names or MODALITIES}

    def codes(self, params, batch, key):
        assert key is None
        zero = jnp.zeros(len(batch))
        bright = 10 * batch.values["image"].mean((1, 2, 3)) if "image" in self.modalities else zero
        known = "label" in self.modalities
        sign = jnp.where(batch.present["label"], 2.0 * batch.values["label"] - 1, 0) if known else zero
        return {"": jnp.stack([bright, sign, zero], 1) + params["shift"], "text": jnp.full((len(batch), 1), 7.0)}

    def decode(self, params, codes, wanted):
        code = codes[""] - params["shift"]
        made = {
            "image": jnp.broadcast_to(code[:, :1, None, None] / 10, (len(code), 4, 4, 1)),
            "text": jnp.tile(jnp.asarray(MODALITIES["text"].encode(ATTACK))[None], (len(code), 1)),
            "label": (code[:, 1] > 0).astype(jnp.int32),
            "clip": jnp.zeros((len(code), 2, 4, 4, 3)) + codes["text"][:, :, None, None, None] / 14,
        }
        assert set(wanted) <= set(made)  # sounds are not asked for
        return {name: made[name] for name in wanted}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return written_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def contents(run) -> Contents:
    return collected(run, Fake())


@pytest.fixture(scope="module")
def coded(run) -> Contents:
    return collected(run, Coded())


@pytest.mark.parametrize("kind", ["contents", "coded"])
def test_it_loads_nothing_from_anywhere(kind, request):
    text = page(request.getfixturevalue(kind))
    tags = Tags(text).tags
    for tag, attributes in tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "poster"):
                assert value.startswith("data:")
    style = re.search("<style>(.*?)</style>", text, re.S).group(1)
    assert "url(" not in style and "@import" not in style
    assert "http:" not in text and "https:" not in text


@pytest.mark.parametrize("kind", ["contents", "coded"])
def test_whatever_a_run_says_is_escaped(kind, request):
    text = page(request.getfixturevalue(kind))
    assert ATTACK not in text and "<i>" not in text and "<b></" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "cat &amp; dog" in text


def test_it_shows_what_was_there(contents):
    text = page(contents)
    for part in ("a run", "step 300", "87.5 %", "50.0 %", "97.0 %", "0123456789ab", "not a number", "2 min"):
        assert part in text, part
    tags = [tag for tag, _ in Tags(text).tags]
    assert {"img", "audio", "svg", "table", "details", "pre"} <= set(tags)
    assert "image/gif" in text and "image/png" in text and "audio/wav" in text


def test_each_row_frames_what_was_given(contents):
    # Two of ten examples are complete; the third has no sound to give.
    assert page(contents).count('class="given"') == 5 + 5 + 4
    assert contents.real.present["sound"].sum() == 2 and contents.real.present["sound"][:2].all()
    assert set(contents.made["image"]) == set(MODALITIES)
    np.testing.assert_array_equal(contents.made["image"]["image"], contents.real.values["image"])


def test_a_model_that_makes_one_modality_alone_has_a_page(run):
    class Painter(Fake):
        def sample(self, variables, key, n, *, given):
            return {"image": super().sample(variables, key, n, given=given)["image"]}

        def reconstruct(self, variables, batch, key):
            return {"image": batch.values["image"]}

    text = page(collected(run, Painter()))
    # A row for all that is given but the image itself, from which nothing is left to make.
    assert text.count('class="given"') == 4 + 4 + 3 and "Texts" not in text
    assert text.count("given back") == 1


def test_the_same_examples_every_time():
    one, two = (draw(Source(), MODALITIES, 8) for _ in range(2))
    np.testing.assert_array_equal(one.values["image"], two.values["image"])
    assert len(one) == 8 and len(complete(one)) == report_contents.REAL
    # Those that are shown do not depend on how many are drawn for other purposes.
    many = draw(Source(), MODALITIES, 10)
    np.testing.assert_array_equal(many.values["image"][:8], one.values["image"])


def test_write_needs_a_run_directory(tmp_path):
    with pytest.raises(ValueError, match="not a run directory"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_beside_it_show_their_coherence(contents, run, tmp_path):
    values = {"coherence/image->text": 0.625, "coherence/image->no such": 1.0}
    (tmp_path / "evaluation.json").write_text(json.dumps({"step": 1, "values": values}))
    both = collected(run, Fake(), beside=[tmp_path])
    assert both.beside == {tmp_path.name: values}
    assert "62.5 %" in page(both) and f"<h3>{tmp_path.name}</h3>" in page(both) and "62.5 %" not in page(contents)
    with pytest.raises(ValueError, match="no evaluation.json there"):
        collected(run, Fake(), beside=[tmp_path / "none"])


def test_a_run_without_numbers_has_a_page(contents):
    bare = dataclasses.replace(contents, rows=[], evaluation={}, judges=[], starts=[], reconstructed=None, made={})
    text = page(bare)
    Tags(text)
    assert "Training" not in text and "Coherence" not in text and "Out of nothing" in text


def test_of_nothing_only_what_needs_nothing_is_shown(run):
    class Conditional(Fake):
        conditions = ("image",)

    needy = collected(run, Conditional())
    assert needy.joint == {} and needy.made
    assert "Out of nothing" not in page(needy) and "makes some of them from others" in page(needy)
    assert "Out of nothing" in page(collected(run, Fake()))


def test_cells_by_type():
    class Unknown:
        shape = (1,)

        def render(self, x):
            return Rendering("bin", b"\x00\xff")

    assert cell("x", Unknown(), np.zeros(1)).startswith('<a download="x.bin" href="data:application/octet-stream;')
    assert 'class="class">cat &amp; dog<' in cell("label", MODALITIES["label"], np.int32(0))


def test_numbers_for_people():
    assert [short(v) for v in (0.0, 2000, 0.0314159, 12.5, 1.5e7)] == ["0", "2,000", "0.0314", "12.5", "1.5e+07"]
    assert [duration(s) for s in (12.34, 600, 9000)] == ["12.3 s", "10 min", "2.5 h"]


def test_a_traversal_moves_one_number_of_the_code_over_its_spread(coded):
    space, bright = coded.space, np.arange(10) * 200 / 255
    assert space.size == 3 and list(space.dimensions) == [0, 1, 2]
    np.testing.assert_allclose(space.spread, [bright.std(), 1, 0], rtol=1e-5, atol=1e-6)
    assert list(space.moved) == ["image", "text", "clip", "label"]
    pictures, classes = space.moved["image"][..., 0, 0, 0], space.moved["label"]
    assert pictures.shape == classes.shape == (2, 3, len(MOVES))
    for i in range(2):  # the number that is moved says what is shown, the others are the example's own
        np.testing.assert_allclose(10 * pictures[i, 0], bright.mean() + MOVES * bright.std(), rtol=1e-4)
        np.testing.assert_allclose(pictures[i, 1:], coded.real.values["image"][i, 0, 0, 0], atol=1e-6)
        np.testing.assert_array_equal(classes[i, 0], coded.real.values["label"][i])
        np.testing.assert_array_equal(classes[i, 1], [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(space.moved["clip"], 0.5)  # private codes stay


def test_a_way_is_straight_and_begins_and_ends_at_examples(coded):
    made, real = (x["image"][..., 0, 0, 0] for x in (coded.space.ways, coded.real.values))
    assert made.shape == (2, len(WAY))
    for p in range(2):
        first, last = real[2 * p : 2 * p + 2]
        np.testing.assert_allclose(made[p], first + WAY * (last - first), atol=1e-6)


def test_the_map_has_a_panel_for_everything_and_for_each_modality_alone(coded):
    panels = coded.space.panels
    assert [panel.given for panel in panels] == [[name] for name in MODALITIES] + [list(MODALITIES)]
    assert [len(panel.points) for panel in panels] == [10, 10, 2, 10, 10, 10]  # two examples have a sound
    # The first axis is the brightness, the second the class; every share is that of the panel's own variance.
    everything = panels[-1]
    assert everything.share.sum() == pytest.approx(1) and everything.share[0] > everything.share[1]
    bright = draw(Source(), MODALITIES, 10).values["image"].mean((1, 2, 3)) * 10
    np.testing.assert_allclose(panels[0].points[:, 0], bright - bright.mean(), atol=0.15)
    np.testing.assert_allclose(panels[1].points.var(0), 0, atol=1e-9)
    assert panels[4].share[1] > 0.9
    np.testing.assert_array_equal(np.sign(panels[4].points[:, 1]), 2 * everything.classes - 1)
    assert coded.space.names == {0: "cat & dog", 1: "<b>"}


def test_principal_axes_are_those_of_the_spread():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    x = rng.normal(size=(5000, 4)) * (0.1, 9, 1, 3) @ turn
    axes = principal(x - x.mean(0))
    for axis, truth in zip(axes.T, turn[[1, 3]], strict=True):
        assert abs(axis @ truth) > 0.999 and axis[np.abs(axis).argmax()] > 0
    np.testing.assert_array_equal(principal(np.array([[2.0], [-2.0]])), [[1, 0]])  # of codes of one number


def test_the_page_shows_the_latent_space(coded):
    text = page(coded)
    for words in ("The latent space", "a code of 3 numbers", "10 test examples", "given sound", "given everything"):
        assert words in text, words
    # A colour for each class in each of six panels; both examples with a sound are of one class.
    assert [text.count(f'class="dots c{i}"') for i in range(3)] == [5, 6, 0]
    assert 'class="key c1">&lt;b&gt;<' in text and ">others<" not in text
    tables = [kind["class"] for tag, kind in Tags(text).tags if tag == "table"]
    assert tables.count("moves") == 2  # pictures of two examples; no clips beside pictures
    ends = re.findall(r'<tr><th>label</th><td class="given">.*?</tr>', text)
    assert len(ends) == 2 and all(row.count("<td") == len(WAY) + 2 and row.count("given") == 2 for row in ends)
    assert "the label that is decoded" in text and "linear probe" not in text


def test_what_was_measured_of_the_codes_is_shown(coded):
    values = {"latents/probe/image": 0.9375, "latents/cluster/image": 0.5, "latents/probe/image+text": None}
    text = latent_space(dataclasses.replace(coded, evaluation=values))
    assert "93.8 %" in text and "50.0 %" in text and "<th>image + text</th><td></td><td></td>" in text


@pytest.mark.parametrize(
    ("names", "shown", "missing"),
    [
        (("image",), ["given everything", "From one example", "Along its dimensions"], ["given image", 'class="key']),
        (("clip", "label"), ["image/gif", 'table class="moves"'], []),
        (("text", "label"), ["From one example", "given text"], ["Along its dimensions"]),
        (("sound",), ["given everything"], ["Along its dimensions", "From one example", 'class="key']),
    ],
    ids=str,
)
def test_a_model_of_few_modalities_has_what_can_be_shown(run, names, shown, missing):
    text = latent_space(collected(run, Coded(*names)))
    Tags(text)
    assert all(part in text for part in shown) and not any(part in text for part in missing)


def test_a_label_beside_the_model_colours_the_map(run):
    contents = collected(run, Coded("image", "text"), labels={"label": MODALITIES["label"]})
    assert set(contents.real.values) == set(contents.reconstructed) == {"image", "text"}
    text = page(contents)
    assert 'class="key c0">cat &amp; dog<' in text and "that is decoded" not in text and "given label" not in text


def test_a_model_without_codes_has_no_such_section(contents):
    assert contents.space is None and latent_space(contents) == ""


def test_the_most_frequent_classes_get_the_colours(coded):
    classes = np.repeat(np.arange(-1, 14), [50, 1, 3, *[2] * 11, 1])
    panel = Panel(["image"], np.zeros((len(classes), 2)), classes, np.zeros(2))
    space = dataclasses.replace(coded.space, panels=[panel], names={i: f"class {i}" for i in range(14)})
    names = coloured(space)
    assert len(names) <= COLOURS and names[1] == "class 1" and not {-1, 0, 13} & set(names)
    assert 'class="key rest">others' in latent_space(dataclasses.replace(coded, space=space))
    assert coloured(dataclasses.replace(space, panels=[dataclasses.replace(panel, classes=classes * 0 - 1)])) == {}
