"""What models make of one modality against what is true: sounds, texts, clips, and whether examples are found again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, Model, data
from flax.core import FrozenDict

from mmgen_jax.evals import Clips, Retrieval, Sounds, Texts, metrics
from mmgen_jax.evals.features import RandomFeatures
from mmgen_jax.evals.intervals import Z, mean_interval
from mmgen_jax.evals.sampling import answers
from mmgen_jax.modalities import Audio, Label, Video
from mmgen_jax.modalities.audio import BANDS
from mmgen_jax.types import Batch, EvalData

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Values:
    """An extractor whose features are the values themselves, of a clip the mean over its frames."""

    def fit(self, name, modality, data, label):
        return self

    def features(self, x):
        return (x.mean(1) if x.ndim == 5 else x).reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class Prism:
    """Makes `colour` of the class it is given; with nothing given, of class 1."""

    colour: object
    modalities: FrozenDict

    def sample(self, variables, key, n, *, given, targets=None):
        classes = jnp.where(given.present["label"], given.values["label"], 1)
        (name,) = (name for name in self.modalities if name != "label")
        return given.completed({name: self.colour(classes), "label": classes})


def of_classes(name, x, tmp_path):
    """Both splits: the examples x [n, *shape], of classes 0, 1, 0, 1, ..."""
    classes = np.arange(len(x), dtype=np.int32) % 2
    split = Batch({name: x, "label": classes}, {name: np.ones(len(x), bool), "label": np.ones(len(x), bool)})
    return EvalData(split, split, tmp_path)


def test_answers_are_of_examples_that_have_both(tmp_path):
    test = data(tmp_path, absent={"picture": [0, 1], "label": [1, 2, 3]}).test
    found = {(g, t): (made, true) for g, t, made, true in answers(Model(), {}, test, KEY, 100, ("label", "picture"))}
    assert set(found) == {("picture", "label"), ("text", "label"), ("text", "picture"), ("label", "picture")}
    assert {pair: len(made) for pair, (made, _) in found.items()} == {
        ("picture", "label"): 56,  # 60 without 0 to 3
        ("text", "label"): 57,
        ("text", "picture"): 58,
        ("label", "picture"): 56,
    }
    for made, true in found.values():
        np.testing.assert_array_equal(made, true)


def test_log_mel_distance():
    x = np.random.default_rng(0).normal(size=(3, 5, 4))
    louder = x + np.log(10) * np.array([0, 1, 2]).reshape(3, 1, 1)  # ten times as loud is 20 dB
    np.testing.assert_allclose(metrics.log_mel_distance(x, louder), [0, 20, 40], atol=1e-9)
    with pytest.raises(ValueError, match=r"of one shape, not \[3, 5, 4\] and \[3, 5, 3\]"):
        metrics.log_mel_distance(x, x[..., :3])


def test_sounds_know_their_spectrogram():
    rng = np.random.default_rng(0)
    wave, mel = Audio(512, rate=8000, window=64, hop=32), Audio(512, rate=8000, window=64, hop=32, mels=8)
    signal = rng.uniform(-1, 1, 512).astype(np.float32)
    assert wave.log_mel(wave.encode(signal)).shape == (17, BANDS)
    assert mel.log_mel(mel.encode(signal)).shape == (17, 8)
    quiet = mel.log_mel(mel.encode(signal / 10)) - mel.log_mel(mel.encode(signal))
    np.testing.assert_allclose(quiet, -np.log(10), rtol=1e-4)


def test_sounds(tmp_path):
    sound = Audio(256, rate=8000, window=64, hop=32, mels=4)
    parts = FrozenDict({"sound": sound, "label": Label(2)})
    loud = np.log(10) / 3  # 20 dB, standardised
    of_class = np.zeros((2, *sound.shape), np.float32) + loud * np.arange(2, dtype=np.float32).reshape(2, 1, 1)
    x = of_class[np.arange(40) % 2]
    values = Sounds()(Prism(lambda c: jnp.asarray(of_class)[c], parts), {}, of_classes("sound", x, tmp_path), KEY)
    assert values["log_mel/label->sound"] == pytest.approx(0, abs=1e-5)
    assert values["log_mel/sound/floor"] == 0  # all sounds of a class are the same
    assert 5 < values["log_mel/sound/chance"] < 15  # 0 dB or 20 dB
    wrong = Prism(lambda c: jnp.asarray(of_class)[1 - c], parts)
    values = Sounds()(wrong, {}, of_classes("sound", x, tmp_path), KEY)
    assert [values[f"log_mel/label->sound{end}"] for end in ("", "/low", "/high")] == pytest.approx([20] * 3, rel=1e-4)
    unlabelled = Sounds(label="none")(wrong, {}, of_classes("sound", x, tmp_path), KEY)
    assert "log_mel/sound/chance" in unlabelled and "log_mel/sound/floor" not in unlabelled


def test_motion_and_consistency():
    still, bright = np.ones((1, 4, 2, 2, 1)), np.arange(1.0, 5).reshape(1, 4, 1, 1, 1) * np.ones((1, 4, 2, 2, 1))
    np.testing.assert_allclose(metrics.motion(np.concatenate([still, 0.1 * bright])), [0, 0.1])
    features = np.array([[[1.0, 0], [0, 2], [0, 3]], [[1, 1], [2, 2], [3, 3]]])
    np.testing.assert_allclose(metrics.consistency(features), [0.5, 1])


def test_clips(tmp_path):
    clip = Video(3, 4, 4, 1)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(size=(20, 1, 4, 4, 1))] * 3, axis=1).astype(np.float32)
    x[1::2] = rng.uniform(size=x[1::2].shape)  # class 0 stands still, class 1 flickers
    made = Prism(
        lambda c: jnp.asarray(x)[c + jnp.arange(len(c)) // 2 * 2], FrozenDict({"clip": clip, "label": Label(2)})
    )
    known = of_classes("clip", x, tmp_path)
    values = Clips(extractor=Values())(made, {}, known, KEY)
    assert set(values) == {"motion/samples", "motion_gap/clip", "motion_gap/clip/floor"} | {
        f"{kind}/clip{end}" for kind in ("motion", "consistency") for end in ("", "/real", "/low", "/high")
    }
    flicker = metrics.motion(x[1::2])  # all that is made
    assert values["motion/clip"] == pytest.approx(flicker.mean(), rel=1e-5)
    assert values["motion/clip/real"] == pytest.approx(flicker.mean() / 2, rel=1e-5)
    # Half of the mass has to come from 0.
    assert values["motion_gap/clip"] == pytest.approx(flicker.mean() / 2, rel=0.2)
    assert values["motion_gap/clip/floor"] == 0
    assert values["consistency/clip"] < values["consistency/clip/real"]
    assert Clips(extractor=RandomFeatures(8, 4))(made, {}, known, KEY)["consistency/clip"] < 1


def test_texts(tmp_path):
    values = Texts(("chrf", "cer", "exact"), halves=4)(Model(), {}, data(tmp_path), KEY)
    assert {key for key in values if "distinct" in key} == {"distinct/text", "distinct/text/real"}
    ends = ("", "/low", "/high")
    assert {f"cer/{given}->text{end}" for given in ("picture", "label") for end in ends} <= set(values)
    # Of "a fox." it says "what?": one in six is wrong.
    assert values["exact/label->text"] == pytest.approx(5 / 6)
    assert values["exact/label->text/low"] < 5 / 6 < values["exact/label->text/high"]
    assert 0 < values["cer/picture->text"] < values["cer/text/chance"] < 1
    assert values["chrf/text/chance"] < values["chrf/picture->text"] < 100
    assert values["distinct/text/real"] == pytest.approx(6 / 60)  # "a ant." and so on
    only = Texts(("bleu", "wer"), halves=0)(Model(), {}, data(tmp_path), KEY)
    assert "bleu/label->text" in only and "bleu/label->text/low" not in only


def test_retrieval(tmp_path):
    known = data(tmp_path)
    values = Retrieval((1, 10, 100), extractor=Values())(Model(), {}, known, KEY)
    # Ten examples look the same: none is the nearest, all are among the ten nearest.
    assert values["recall@1/text->picture"] == 0 and values["recall@10/text->picture"] == 1
    assert values["recall@10/text->picture/chance"] == pytest.approx(1 / 6)
    assert values["recall@10/label->picture/examples"] == 60
    assert values["recall@10/label->picture/low"] < 1 <= values["recall@10/label->picture/high"] + 1e-9
    assert not any("100" in key for key in values) and "recall@1/picture->label" not in values
    wrong = Retrieval((10,), extractor=Values())(Model(wrong=3), {}, known, KEY)
    assert wrong["recall@10/text->picture"] == pytest.approx(1 / 2)
    judged = Retrieval((10,), extractor=RandomFeatures(8, 4))(Model(), {}, known, KEY)  # texts have features too
    assert judged["recall@10/label->text"] == pytest.approx(5 / 6)


def test_intervals_of_means():
    x = np.random.default_rng(0).normal(size=50)
    assert mean_interval(x) == pytest.approx(
        (x.mean() - Z * x.std(ddof=1) / 50**0.5, x.mean() + Z * x.std(ddof=1) / 50**0.5)
    )
    assert np.isnan(mean_interval(x[:1])).all()


def test_what_cannot_be_measured_is_said(tmp_path):
    labels = Model(FrozenDict({"label": MODALITIES["label"]}))
    for measure, what in ((Sounds(), "sounds"), (Clips(), "clips"), (Texts(), "texts")):
        with pytest.raises(
            ValueError, match=rf"{type(measure).__name__} needs a modality of {what}, but the model has"
        ):
            measure(labels, {}, data(tmp_path), KEY)
    for kind, fields, message in (
        (Sounds, {"limit": 0}, "Sounds: limit must be at least 1, not 0"),
        (Clips, {"limit": 0}, "Clips: limit must be at least 1, not 0"),
        (Texts, {"names": ("fid",)}, "Texts: names has fid, but must be of bleu, chrf"),
        (Texts, {"limit": 0}, "Texts: limit must be at least 1, not 0"),
        (Texts, {"halves": 1}, "Texts: halves must be 0 or at least 2, not 1"),
        (Retrieval, {"ks": (0,)}, r"Retrieval: ks must be numbers of at least 1, not \(0,\)"),
        (Retrieval, {"limit": 0}, "Retrieval: limit must be at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(**fields)
