"""Modes of generators whose answers are known: of all modes, of one, of half; and what a judge's errors do."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from mmgen_jax.evals import Modes, metrics
from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.modes import channels
from mmgen_jax.modalities import Image, Vector
from mmgen_jax.types import Batch, EvalData

SIDE, KEY = 8, jax.random.key(0)
DIGITS = (np.random.default_rng(7).random((10, SIDE, SIDE)) > 0.5).astype(np.float32)  # what each looks like


def pictures(classes):
    """A digit in each channel: [N] -> [N, SIDE, SIDE, 3]."""
    return np.moveaxis(DIGITS[np.stack([classes // 100, classes // 10 % 10, classes % 10], axis=-1)], 1, -1)


def looks_like(x):
    """[N, SIDE, SIDE, 1] -> the digit, [N]."""
    return np.abs(x[:, None, ..., 0] - DIGITS).sum((2, 3)).argmin(1)


@dataclasses.dataclass(frozen=True)
class Known:
    """A judge that knows these digits, but takes those below `blind` for 0. It checks what it would be trained on."""

    blind: int = 0

    def fit(self, name, modality, data, label):
        assert modality == Image(SIDE, SIDE, 1)
        for split in (data.train, data.test):
            x, y = split.values[name], split.values[label]
            assert x.shape[1:] == (SIDE, SIDE, 1)
            np.testing.assert_array_equal(looks_like(x), y)
        return self

    def classes(self, x):
        digits = looks_like(x)
        return np.where(digits < self.blind, 0, digits)


@dataclasses.dataclass(frozen=True)
class Stacks:
    """Makes pictures of random classes, all below `classes`."""

    classes: int = 1000
    modalities: FrozenDict = FrozenDict(image=Image(SIDE, SIDE, 3), other=Vector(2))

    def sample(self, variables, key, n, *, given, targets=None):
        table = jnp.asarray(pictures(np.arange(1000)))
        made = table[jax.random.randint(key, (n,), 0, self.classes)]
        return given.completed({"image": made, "other": jnp.zeros((n, 2))})


def split(n):
    classes = np.random.default_rng(n).integers(1000, size=n).astype(np.int32)
    there = np.ones(n, bool)
    return Batch({"image": pictures(classes), "label": classes}, {"image": there, "label": there})


def measured(tmp_path, model=Stacks(), **fields):  # noqa: B008
    fields = {"samples": 5_000, "judge": Known()} | fields
    return Modes(**fields)(model, {}, EvalData(split(300), split(4_000), tmp_path), KEY)


def test_a_generator_of_all_modes_is_near_the_floor(tmp_path):
    values = measured(tmp_path)
    assert values["kl/image/floor"] == pytest.approx(999 / 10_000)
    # 993 of the 1,000 classes are expected among 5,000 draws; the interval holds the floor.
    assert 985 <= values["modes/image"] <= 1000
    assert values["kl/image/low"] < 999 / 10_000 < values["kl/image/high"]
    assert values["kl/image"] == pytest.approx(999 / 10_000, rel=0.1)
    # So are real pictures, of which there are 4,000.
    assert values["kl/image/real"] == pytest.approx(999 / 8_000, rel=0.1)
    assert 970 <= values["modes/image/real"] <= 995
    assert values["judge/image"] == 1 and values["modes/image/samples"] == 5_000


def test_a_generator_of_one_picture_has_one_mode(tmp_path):
    values = measured(tmp_path, Stacks(classes=1))
    assert values["modes/image"] == 1 and values["kl/image"] == pytest.approx(np.log(1000))
    assert values["modes/image/real"] > 900


def test_half_of_the_modes_cost_a_bit(tmp_path):
    values = measured(tmp_path, Stacks(classes=500))
    assert 495 <= values["modes/image"] <= 500
    assert values["kl/image"] == pytest.approx(np.log(2) + 499 / 10_000, abs=0.01)


def test_the_errors_of_the_judge_stand_beside(tmp_path):
    """Half of the digits are taken for 0: 6 of 10 are left in each channel, and 0.6^3 of the classes are right."""
    values = measured(tmp_path, judge=Known(blind=5))
    assert values["judge/image"] == pytest.approx(0.6**3, abs=0.03)
    assert values["modes/image"] <= 216 and values["modes/image/real"] <= 216


def test_a_judge_is_trained_on_single_channels(tmp_path):
    """Stripes across and along: two digits, so eight classes of three channels."""
    stripes = np.broadcast_to((np.arange(12) // 2 % 2)[:, None], (12, 12)).astype(np.float32)
    digits = np.stack([stripes, stripes.T])
    binary = np.array(list(itertools.product((0, 1), repeat=3)))
    table = np.moveaxis(digits[binary], 1, -1)  # [8, 12, 12, 3]
    classes = np.tile(np.arange(8, dtype=np.int32), 20)
    there = np.ones(160, bool)
    data = Batch({"image": table[classes], "label": classes}, {"image": there, "label": there})

    @dataclasses.dataclass(frozen=True)
    class Five:
        modalities: FrozenDict = FrozenDict(image=Image(12, 12, 3))

        def sample(self, variables, key, n, *, given):
            return {"image": jnp.asarray(table)[jnp.arange(n) % 5]}

    judge = Classifier(width=16, channels=8, steps=60, batch_size=32, rate=2e-2)
    values = Modes(digits=2, samples=100, judge=judge)(Five(), {}, EvalData(data, data, tmp_path), KEY)
    assert values["judge/image"] == 1 and values["modes/image/real"] == 8 and values["modes/image"] == 5
    assert values["kl/image"] == pytest.approx(np.log(8 / 5)) and values["kl/image/floor"] == 7 / 200
    assert len(list(tmp_path.glob("image-*.npz"))) == 1


def test_channels_stand_one_after_another():
    x = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(channels(x)[4, ..., 0], x[1, ..., 1])


def test_statistics_of_counts():
    counts = np.array([3, 0, 1, 0])
    assert metrics.modes_covered(counts) == 2
    assert metrics.modes_divergence(counts) == pytest.approx(0.75 * np.log(3))
    assert metrics.modes_divergence(np.full(7, 5)) == pytest.approx(0)
    with np.errstate(all="raise"):
        assert metrics.modes_deviation(np.array([9, 0])) == pytest.approx(np.sqrt(1 / (2 * 81)))


@pytest.mark.parametrize("p", [np.full(50, 0.02), np.arange(1, 51) / 1275], ids=["even", "uneven"])
def test_the_deviation_is_that_of_many_draws(p):
    n, rng = 2_000, np.random.default_rng(0)
    draws = rng.multinomial(n, p, size=2_000)
    found = np.array([metrics.modes_divergence(counts) for counts in draws])
    said = np.mean([metrics.modes_deviation(counts) for counts in draws[:50]])
    assert said == pytest.approx(found.std(), rel=0.15)
    if np.ptp(p) == 0:
        assert metrics.modes_floor(50, n) == pytest.approx(found.mean(), rel=0.05)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda data: Modes(samples=0), "samples must be at least 1, not 0"),
        (lambda data: Modes(digits=1), "digits must be at least 2, not 1"),
        (lambda data: Modes(name="sound")(Stacks(), {}, data, KEY), "'sound' is no modality of the model"),
        (lambda data: Modes(label="class")(Stacks(), {}, data, KEY), "'class' is not in the data"),
    ],
)
def test_mistakes_are_told(make, message, tmp_path):
    with pytest.raises(ValueError, match=f"^Modes: {message}"):
        make(EvalData(split(5), split(5), tmp_path))
