"""Distances of a model's samples, and the intervals that stand beside what is measured."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import Model, data

from mmgen_jax.evals import RandomFeatures
from mmgen_jax.evals.distances import METRICS, Distances
from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.intervals import Z, share_interval, spread_of_halves

TINY = Classifier(width=16, channels=8, steps=20, batch_size=32, rate=2e-2)


@dataclasses.dataclass(frozen=True)
class Dark(Model):
    def sample(self, variables, key, n, *, given=None, targets=None):
        return {"picture": jnp.zeros((n, 6, 6, 1))}


@pytest.mark.parametrize("extractor", [TINY, RandomFeatures(width=16, channels=8)])
def test_distances_of_a_model(tmp_path, extractor):
    measure = Distances(("frechet", "kernel", "recall"), extractor=extractor)
    values = measure(Model(), {}, data(tmp_path), jax.random.key(0))
    assert set(values) == {f"{m}/picture{e}" for m in measure.names for e in ("", "/floor", "/low", "/high")}
    # Test and training pictures are the same here; the model makes the same six, in slightly other numbers.
    assert abs(values["frechet/picture/floor"]) < 1e-6
    assert values["recall/picture/floor"] == 1
    assert values["frechet/picture/low"] < values["frechet/picture"] < values["frechet/picture/high"]
    dark = measure(Dark(), {}, data(tmp_path), jax.random.key(0))
    for metric in ("frechet", "kernel"):
        assert dark[f"{metric}/picture"] > max(0, 2 * values[f"{metric}/picture"])


def test_distances_of_what_is_made_of_something(tmp_path):
    """All texts of the test split are given, so that all but two classes are made as often as they are there."""
    measure = Distances(("frechet",), given=("text",), extractor=TINY, halves=0)
    right, wrong = (measure(Model(wrong=w), {}, data(tmp_path), jax.random.key(0)) for w in (0, 5))
    assert set(right) == {"frechet/text->picture", "frechet/text->picture/floor"}
    assert abs(right["frechet/text->picture"]) < 1e-6 < 1e-3 < wrong["frechet/text->picture"]
    some = measure(Model(), {}, data(tmp_path, absent={"text": [0, 1]}), jax.random.key(0))
    assert some["frechet/text->picture"] > 1e-6  # of 58 examples, whose pictures are not those of all
    with pytest.raises(ValueError, match=r"given has \['smell'\], but the modalities are \['pic"):
        Distances(given=("smell",))(Model(), {}, data(tmp_path), jax.random.key(0))


def test_every_metric_has_its_name_and_no_interval_is_made_if_none_is_wanted(tmp_path):
    values = Distances(tuple(METRICS), extractor=TINY, halves=0)(Model(), {}, data(tmp_path), jax.random.key(0))
    assert set(values) == {f"{m}/picture{e}" for m in METRICS for e in ("", "/floor")}
    assert all(np.isfinite(list(values.values())))


def test_only_some_modalities_are_looked_at(tmp_path):
    measure = Distances(("frechet",), extractor=RandomFeatures(8, 4), halves=0, only=("picture",))
    assert set(measure(Model(), {}, data(tmp_path), jax.random.key(0))) == {"frechet/picture", "frechet/picture/floor"}
    with pytest.raises(
        ValueError, match=r"only has \['sound'\], but the modalities are \['picture', 'text', 'label'\]"
    ):
        Distances(only=("sound",))(Model(), {}, data(tmp_path), jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ("fid",)}, "names has fid, but must be of frechet, kernel"),
        ({"limit": 1}, "limit must be at least 2, not 1"),
        ({"halves": 1}, "halves must be 0 or at least 2, not 1"),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Distances(**fields)


def test_half_of_the_examples_shows_the_spread_of_all():
    # Of a mean of n independent numbers of deviation 1, the deviation is 1 / sqrt(n).
    x = np.random.default_rng(0).normal(size=(400, 1))
    spread = spread_of_halves(lambda a, _: a.mean(), x, x, rounds=4000, seed=0)
    assert spread == pytest.approx(x.std(ddof=1) / 20, rel=0.05)


def test_intervals_of_shares_hold_the_truth():
    rng = np.random.default_rng(0)
    for truth in (0.02, 0.5, 0.9):
        shares = rng.binomial(50, truth, 4000) / 50
        ends = np.array([share_interval(share, 50) for share in shares])
        assert 0.92 < np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) < 0.98
    assert share_interval(0.0, 10) == pytest.approx((0, Z**2 / (10 + Z**2)))
    assert share_interval(1.0, 10)[1] == pytest.approx(1)
