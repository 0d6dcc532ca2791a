"""Coherence, facts and reconstruction of models whose answers are known."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, NAMES, Model, Rows, data, split
from flax.core import FrozenDict

from mmgen_jax.evals import sampling
from mmgen_jax.evals.coherence import Coherence, default_judge, given_sets
from mmgen_jax.evals.facts import Facts, agreement
from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.reconstruction import Reconstruction, edit_distance
from mmgen_jax.evals.words import Words
from mmgen_jax.modalities import Image, Label, Text, Vector, Video

KEY = jax.random.key(0)
JUDGES = FrozenDict(picture=Rows())


def test_coherence_of_a_known_model(tmp_path):
    values = Coherence(judges=JUDGES)(Model(wrong=2), {}, data(tmp_path), KEY)
    expected = {
        "picture->text": 5 / 6,  # the text of the last class says nothing
        "picture->label": 1,
        "text->picture": 4 / 6,  # two classes become the next
        "text->label": 4 / 6,
        "label->picture": 1,
        "label->text": 5 / 6,
        "picture+text->label": 1,
        "picture+label->text": 5 / 6,
        "text+label->picture": 1,
    }
    coherence = {name.removeprefix("coherence/"): v for name, v in values.items() if "->" in name}
    assert coherence == pytest.approx(expected)
    singles = [v for name, v in expected.items() if "+" not in name]
    assert values["coherence/given_1"] == pytest.approx(np.mean(singles))
    assert values["coherence/given_2"] == pytest.approx((1 + 5 / 6 + 1) / 3)
    assert values["judge/picture"] == values["judge/text"] == 1
    # All samples agree but those of the last class: a text that says nothing agrees with nothing.
    assert values["coherence/joint"] == pytest.approx(5 / 6, abs=0.05)


def test_a_model_that_makes_one_modality_alone_is_judged_by_it(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Painter(Model):
        def sample(self, variables, key, n, *, given, targets=None):
            return super().sample(variables, key, n, given=given, targets=("picture",))

        def reconstruct(self, variables, batch, key):
            return {"picture": 0.5 * batch.values["picture"]}

    values = Coherence(judges=JUDGES)(Painter(), {}, data(tmp_path), KEY)
    made = {name.removeprefix("coherence/"): v for name, v in values.items() if name.startswith("coherence/")}
    assert made.pop("examples") == 60
    assert made == {"text->picture": 1, "label->picture": 1, "text+label->picture": 1, "given_1": 1, "given_2": 1}
    # Of a picture, a sixth is one: half of it is missed by one half.
    assert Reconstruction()(Painter(), {}, data(tmp_path), KEY) == {"reconstruction/picture_mse": pytest.approx(1 / 24)}


def test_single_sets_only(tmp_path):
    values = Coherence(judges=JUDGES, subsets="single")(Model(), {}, data(tmp_path), KEY)
    assert not any("+" in name for name in values) and "coherence/given_2" not in values


def test_a_limit_takes_every_class_of_a_sorted_split(tmp_path):
    values = Coherence(judges=JUDGES, limit=30, subsets="single")(Model(wrong=3), {}, data(tmp_path), KEY)
    assert 0.2 < values["coherence/text->label"] < 0.8


def test_examples_without_the_part_are_left_out(tmp_path):
    # Texts of the classes that go wrong, and the labels of class 2, are absent from the test split.
    absent = {"text": list(range(20)), "label": list(range(20, 30))}
    values = Coherence(judges=JUDGES)(Model(wrong=2), {}, data(tmp_path, absent=absent), KEY)
    assert values["coherence/text->picture"] == 1
    assert values["coherence/picture->text"] == pytest.approx(40 / 50)
    values = Coherence(judges=JUDGES)(Model(), {}, data(tmp_path, absent={"text": list(range(20, 60))}), KEY)
    assert values["coherence/text->picture"] == 1
    nothing = data(tmp_path, absent={"text": list(range(30)), "picture": list(range(30, 60))})
    assert "coherence/picture+text->label" not in Coherence(judges=JUDGES)(Model(), {}, nothing, KEY)


def test_what_is_absent_cannot_matter(tmp_path):
    complete = data(tmp_path, absent={"text": [0, 17, 59]})
    spoiled = split(60, {"text": [0, 17, 59]})
    spoiled.values["text"][[0, 17, 59]] = 7
    spoiled = dataclasses.replace(complete, test=spoiled)
    evaluator = Coherence(judges=JUDGES)
    assert evaluator(Model(), {}, complete, KEY) == evaluator(Model(), {}, spoiled, KEY)


def test_the_label_may_be_in_the_data_alone(tmp_path):
    evaluator = Coherence(judges=FrozenDict(picture=Rows(), text=Words(NAMES)))
    known = evaluator(Model(wrong=2), {}, data(tmp_path), KEY)
    blind = Model(FrozenDict({name: m for name, m in MODALITIES.items() if name != "label"}), wrong=2)
    values = evaluator(blind, {}, data(tmp_path), KEY)
    assert set(values) == {
        *(f"coherence/{what}" for what in ("picture->text", "text->picture", "given_1", "joint", "examples")),
        *("judge/picture", "judge/text"),
    }
    shared = set(values) - {"coherence/given_1", "coherence/joint"}
    assert {name: values[name] for name in shared} == {name: known[name] for name in shared}


def test_batches_serve_any_number_by_one_program(monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 8)
    traced = []

    class Echo:
        modalities = {"a": Vector(1), "b": Vector(1)}

        def sample(self, variables, key, n, *, given):
            traced.append(n)
            return given.completed({"a": given.values["b"] - 1, "b": given.values["a"] * 2})

    x, echo = np.arange(21.0, dtype=np.float32)[:, None], Echo()
    made = sampling.generate(echo, {}, KEY, {"a": x}, 21)
    np.testing.assert_array_equal(made["a"], x)
    np.testing.assert_array_equal(made["b"], 2 * x)
    # Another set of given modalities, another number: the same program.
    np.testing.assert_array_equal(sampling.generate(echo, {}, KEY, {"b": x}, 21)["a"], x - 1)
    np.testing.assert_array_equal(sampling.generate(echo, {}, KEY, {}, 9)["b"], np.zeros((9, 1)))
    assert traced == [8]


def test_default_judges():
    classes = np.array([0, 5])
    assert default_judge(MODALITIES["text"], MODALITIES["label"], classes) == Words(NAMES)
    assert default_judge(MODALITIES["text"], Label(6), classes) == Classifier()
    assert default_judge(MODALITIES["text"], None, classes) == Classifier()
    assert default_judge(MODALITIES["picture"], MODALITIES["label"], classes) == Classifier()


def test_given_sets_are_proper_and_not_empty():
    assert given_sets(("a", "b", "c"), "all") == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    assert given_sets(("a",), "all") == given_sets(("a",), "single") == []
    assert len(given_sets(tuple("abcde"), "all")) == 2**5 - 2


def test_words_stand_alone_and_once():
    text = Text(length=32)
    judge = Words(("one", "two", "twenty two")).fit("text", text, None, "label")
    said = ["a one.", "ONE, one", "bone", "one two", "", "twenty two!", "two22"]
    np.testing.assert_array_equal(judge.classes(np.stack([text.encode(s) for s in said])), [0, 0, -1, -1, -1, 2, -1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Coherence(subsets="pairs"), 'subsets must be "all" or "single", not \'pairs\''),
        (lambda: Coherence(limit=0), "limit must be at least 1, not 0"),
        (lambda: Words(("one", "One")), "different words"),
        (lambda: Classifier(steps=30), "steps must be a multiple of 20, not 30"),
        (
            lambda: Coherence(label="class")(Model(), {}, data(Path()), KEY),
            "'class' is no modality of the model and no",
        ),
        (lambda: Coherence(judges=FrozenDict(sound=Rows()))(Model(), {}, None, KEY), "'sound' is no modality of the"),
        (lambda: Reconstruction()(Model(), {}, None, KEY), "with a method reconstruct"),
        (lambda: Facts()(Model(), {}, None, KEY), r"of which the model has \['text'\]"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_agreement_and_its_chance():
    share, chance = agreement(["thin", "thin", "thick", None], ["thin", "thick", None, "thin"])
    assert share == pytest.approx(1 / 3)
    assert chance == pytest.approx((2 * 1 + 1 * 1 + 0) / 9)
    assert np.isnan(agreement([None], ["thin"])).all()


@dataclasses.dataclass(frozen=True)
class Bars:
    """Made from a text, an upright bar `columns` wide; a clip of it that stands still, or moves right."""

    columns: int = 1
    speed: int = 2
    modalities: FrozenDict = FrozenDict(text=Text(length=64), image=Image(28, 28, 1), video=Video(4, 32, 32, 1))

    def sample(self, variables, key, n, *, given=None):
        image = np.zeros((n, 28, 28, 1), np.float32)
        image[:, 4:24, 8 : 8 + self.columns] = 1
        clip = np.zeros((n, 4, 32, 32, 1), np.float32)
        for t in range(4):
            clip[:, t, 4:24, 8 + self.speed * t :][:, :, : self.columns] = 1
        text = np.stack([self.modalities["text"].encode("a thin, narrow one, upright, moving left.")] * n)
        made = {name: jnp.asarray(x) for name, x in dict(text=text, image=image, video=clip).items()}
        return made if given is None else given.completed(made)


def test_facts_are_measured_in_what_is_made(tmp_path):
    model = Bars(columns=1, speed=2)
    texts = ["a thin, narrow one, upright, moving right."] * 3 + ["a thick, narrow one, upright, moving right."]
    made = model.sample({}, KEY, 4)
    values = {"text": np.stack([model.modalities["text"].encode(t) for t in texts])}
    values = jax.device_get(made) | values
    there = {name: np.ones(4, bool) for name in values}
    test = dataclasses.replace(data(tmp_path), test=type(split(6))(values, there))
    found = Facts()(model, {}, test, KEY)
    assert found["facts/direction:text->video"] == found["facts/direction:text->video/chance"] == 1
    assert found["facts/direction:video->text"] == 0  # its texts say left, its clips go right
    assert found["facts/thickness:text->image"] == found["facts/thickness:text->image/chance"]
    assert not any(name.startswith("facts/direction") and "image" in name for name in found)
    still = Facts()(dataclasses.replace(model, speed=0), {}, test, KEY)
    assert still["facts/direction:text->video"] == 0
    assert still["facts/width:image->video"] == 1


def test_reconstruction_errors(tmp_path):
    class Copy(Model):
        def reconstruct(self, variables, batch, key):
            text = batch.values["text"].at[:, 2].set(batch.values["text"][:, 3])  # "a ant." becomes "a nnt."
            return {"picture": batch.values["picture"] + 0.5, "text": text, "label": batch.values["label"] * 0}

    values = Reconstruction()(Copy(), {}, data(tmp_path, absent={"label": list(range(10))}), KEY)
    assert values["reconstruction/picture_mse"] == pytest.approx(0.25)
    assert values["reconstruction/label_accuracy"] == 0
    # One letter of the six of every text.
    assert values["reconstruction/text_error_rate"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance(a, b, distance):
    assert edit_distance(a, b) == edit_distance(b, a) == distance
