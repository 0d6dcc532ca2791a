"""How examples are turned, and that features which know the turn know the class."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from evals_fakes import Model, data
from flax.core import FrozenDict

from mmgen_jax.evals import Classifier, Pretext, RandomFeatures, Rotations
from mmgen_jax.evals.rotations import turned

TINY = Classifier(width=16, channels=8, steps=60, batch_size=32, rate=2e-2)


def test_every_kind_of_array_is_turned():
    picture = np.arange(8.0).reshape(1, 2, 2, 2)
    turns = turned(picture)
    assert [t[0, 0, 0, 0] for t in turns] == [0, 2, 6, 4]  # what comes to the upper left corner
    clip = np.stack([picture, picture + 8], axis=1)
    for turn, one in zip(turned(clip), turns, strict=True):
        np.testing.assert_array_equal(turn[:, 0], one)
        np.testing.assert_array_equal(turn[:, 1], one + 8)
    assert len(turned(np.zeros((1, 2, 3, 1)))) == 2  # half turns only
    sound = np.arange(6.0).reshape(1, 2, 3)
    assert [t[0, 0, 0] for t in turned(sound)] == [0, 3, 2, 5]
    np.testing.assert_array_equal(turned(sound[:, :, :1])[1], sound[:, ::-1, :1])
    assert [len(turned(np.zeros(shape))) for shape in ((1, 2, 1), (1, 4))] == [2, 2]
    for shape in ((1,), (1, 1), (1, 1, 1)):
        with pytest.raises(ValueError, match="cannot be turned"):
            turned(np.zeros(shape))


def test_features_that_know_the_turn(tmp_path):
    """One bright row of six; turned, it is a column, or a row as far from the other edge."""
    seen = Rotations(TINY).fit("picture", Model().modalities["picture"], data(tmp_path), "none")
    assert seen.features(data(tmp_path).test.values["picture"]).shape == (60, 16)
    (kept,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert kept["modality"] == "picture turned" and kept["classes"] == 4
    assert kept["accuracy"] > 0.4  # half a turn cannot be told, of which there is one for every class
    few = dataclasses.replace(Rotations(TINY), limit=5)
    few.fit("picture", Model().modalities["picture"], data(tmp_path), "none")
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_the_probe(tmp_path):
    features = {"random": RandomFeatures(8, 4), "rotations": Rotations(TINY), "supervised": TINY}
    assert Pretext(features=features) == Pretext(features=FrozenDict(features))
    values = Pretext(features=features)(Model(), {}, data(tmp_path), jax.random.key(0))
    ends = ("", "/low", "/high")
    assert set(values) == {f"{p}/picture/{kind}{end}" for p in ("probe", "knn") for kind in features for end in ends}
    assert values["knn/picture/random/low"] > 1 / 6  # at the edges a row looks like no other
    assert values["probe/picture/supervised/low"] > 1 / 6  # more than chance
    with pytest.raises(ValueError, match="Pretext: limit must be at least 1, not 0"):
        Pretext(limit=0)
