"""Copies of training examples are found, and what a classifier learns from made examples is told."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, Model, data, split
from flax.core import FrozenDict
from scipy.stats import mannwhitneyu

from mmgen_jax.evals import Memorisation, Teaching, metrics
from mmgen_jax.evals.features import Classifier
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.types import Batch, EvalData

LEARNS = Classifier(width=16, channels=8, steps=100, batch_size=32, rate=1e-2)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """An extractor whose features are the values themselves."""

    def fit(self, name, modality, data, label):
        return self

    def features(self, x):
        return x.reshape(len(x), -1)


def draws(n, seed, dimension=4):
    return np.random.default_rng(seed).normal(size=(n, dimension))


def test_new_examples_are_as_far_from_the_training_set_as_test_examples():
    train, test = draws(2000, 0), draws(500, 1)
    found = [metrics.copying(draws(500, seed), test, train) for seed in range(2, 22)]
    # One test set serves all, so they have something in common, but no more than one draw of it.
    assert abs(np.mean(found)) < 2 and 0.3 < np.std(found) < 1.3
    assert metrics.authentic(test, train) == pytest.approx(0.5, abs=0.1)


def test_copies_are_found_and_so_is_what_is_far_away():
    train, test = draws(300, 0), draws(200, 1)
    near = train[:200] + 1e-3 * draws(200, 2)
    assert metrics.copying(near, test, train) < -15 and metrics.authentic(near, train) == 0
    assert metrics.copying(test + 10, test, train) > 15 and metrics.authentic(test + 10, train) == 1


def test_the_statistic_is_that_of_mann_and_whitney():
    train, made, test = draws(50, 0, 2).round(), draws(40, 1, 2).round(), draws(60, 2, 2).round()  # with ties
    distances = [np.array([min(((x - t) ** 2).sum() for t in train) for x in xs]) for xs in (made, test)]
    u = mannwhitneyu(*distances).statistic
    assert metrics.copying(made, test, train) == pytest.approx((u - 1200) / np.sqrt(2400 * 101 / 12))


def test_of_a_model(tmp_path):
    rng = np.random.default_rng(0)

    def noisy(n):
        part = split(n)
        picture = part.values["picture"] + rng.normal(0, 0.1, part.values["picture"].shape).astype(np.float32)
        return dataclasses.replace(part, values={**part.values, "picture": picture})

    known = EvalData(noisy(60), noisy(60), tmp_path)

    @dataclasses.dataclass(frozen=True)
    class Copier(Model):
        def sample(self, variables, key, n, *, given=None, targets=None):
            return {"picture": jnp.asarray(known.train.values["picture"])[jax.random.randint(key, (n,), 0, 60)]}

    values = Memorisation(extractor=Pixels())(Copier(), {}, known, jax.random.key(0))
    assert set(values) == {"copying/picture", "authentic/picture", "authentic/picture/floor"}
    assert values["copying/picture"] < -6 and values["authentic/picture"] == 0
    assert values["authentic/picture/floor"] > 0.2


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Makes a noisy unit vector of the class it is given, or of class 2 whatever it is given."""

    alike: bool = False
    modalities: FrozenDict = FrozenDict({"vector": Vector(6), "label": Label(6)})

    def sample(self, variables, key, n, *, given=None, targets=None):
        classes = jnp.full(n, 2) if self.alike else given.values["label"]
        return given.completed({"vector": jnp.eye(6)[classes] + 0.1 * jax.random.normal(key, (n, 6))})


def test_a_model_teaches_what_it_knows(tmp_path):
    classes, rng = np.arange(120, dtype=np.int32) % 6, np.random.default_rng(0)
    vectors = np.eye(6, dtype=np.float32)[classes] + rng.normal(0, 0.1, (120, 6)).astype(np.float32)
    part = Batch({"vector": vectors, "label": classes}, dict.fromkeys(("vector", "label"), np.ones(120, bool)))
    measure, known = Teaching(classifier=LEARNS), EvalData(part, part, tmp_path)
    values = measure(Vectors(), {}, known, jax.random.key(0))
    assert set(values) == {"cas/vector", "cas/vector/real"}
    assert min(values.values()) > 0.9
    assert measure(Vectors(alike=True), {}, known, jax.random.key(0))["cas/vector"] < 0.5
    assert not list(tmp_path.iterdir())  # no judge is kept that serves once


def test_what_cannot_be_measured_is_said(tmp_path):
    unlabelled = Model(MODALITIES.pop("label")[0])
    with pytest.raises(ValueError, match="Teaching: 'label' is no modality of the model"):
        Teaching()(unlabelled, {}, data(tmp_path), jax.random.key(0))
    for kind in (Teaching, Memorisation):
        with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
            kind(limit=0)
