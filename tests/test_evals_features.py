"""Judges: what they learn, that they are kept and found again, and the changes they are trained with."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, data, split

from mmgen_jax.evals import kept
from mmgen_jax.evals.augment import augment as plain_augment
from mmgen_jax.evals.features import Classifier, Network, labelled, shrunk

augment = jax.jit(plain_augment)
TINY = Classifier(width=16, channels=8, steps=60, batch_size=32, rate=2e-2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder with one trained judge of the texts in it: tokens to read, and no names to look for."""
    folder = tmp_path_factory.mktemp("judges")
    TINY.fit("text", MODALITIES["text"], data(folder), "label")
    return folder


def test_a_judge_learns_and_says_how_well(cache):
    judge = TINY.fit("text", MODALITIES["text"], data(cache), "label")
    x, y = labelled(split(60), "text", "label")
    assert (judge.classes(x) == y).mean() == 1
    assert judge.features(x).shape == (60, 16)
    (description,) = [json.loads(path.read_text()) for path in cache.glob("*.json")]
    assert description["accuracy"] == 1 and description["modality"] == "text"
    assert description["sha256"] == kept.weights_digest(judge.params)


def test_kept_judges_are_used_again_and_only_for_the_same(cache, monkeypatch):
    trained = []

    def train(classifier, network, x, y, name):
        trained.append(name)
        return jax.jit(network.init)(jax.random.key(0), x[:1])["params"]

    monkeypatch.setattr("mmgen_jax.evals.features.train_network", train)
    TINY.fit("text", MODALITIES["text"], data(cache), "label")
    assert not trained
    TINY.fit("text", MODALITIES["text"], data(cache, 54), "label")  # other data
    dataclasses.replace(TINY, seed=1).fit("text", MODALITIES["text"], data(cache), "label")
    assert len(trained) == 2
    (newest,) = [path for path in cache.glob("*.json") if json.loads(path.read_text())["seed"] == 1]
    with newest.with_suffix(".npz").open("r+b") as file:  # damaged: trained again
        file.seek(300)
        file.write(b"\x00\xff\x00\xff")
    dataclasses.replace(TINY, seed=1).fit("text", MODALITIES["text"], data(cache), "label")
    assert len(trained) == 3


def test_the_same_seed_trains_the_same_judge(tmp_path):
    short = dataclasses.replace(TINY, steps=20)
    one, two = (short.fit("text", MODALITIES["text"], data(tmp_path / str(i)), "label") for i in range(2))
    assert kept.weights_digest(one.params) == kept.weights_digest(two.params)


def test_only_labelled_examples_are_learned_from():
    x, y = labelled(split(12, {"text": [0], "label": [1]}), "text", "label")
    assert len(x) == len(y) == 10
    with pytest.raises(ValueError, match="no example has both 'text' and 'label'"):
        labelled(split(6, {"text": list(range(6))}), "text", "label")
    with pytest.raises(ValueError, match="'class' is no modality of the data"):
        labelled(split(6), "text", "class")


def test_digest_depends_on_everything():
    x = np.arange(6.0)
    digests = {
        kept.digest(made_of, array)
        for made_of in ({"a": 1}, {"a": 2})
        for array in (x, x[::-1], x.reshape(2, 3), x.astype(np.float32))
    }
    assert len(digests) == 8
    assert kept.digest({"a": 1, "b": 2}, x) == kept.digest({"b": 2, "a": 1}, x.copy())


def test_nothing_pickled_is_read(tmp_path):
    np.savez(tmp_path / "judge.npz", a=np.array([{}], object))
    (tmp_path / "judge.json").write_text('{"sha256": ""}')
    assert kept.read(tmp_path / "judge") is None
    assert kept.read(tmp_path / "absent") is None


@pytest.mark.parametrize("shape", [(5,), (20, 6), (12, 10, 3), (4, 12, 10, 1)])
def test_every_kind_of_array_can_be_judged(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, *shape)), jnp.float32)
    network = Network(classes=4, ids=0, width=8, channels=4)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    features, logits = jax.eval_shape(network.apply, params, x)
    assert features.shape == (3, 8) and logits.shape == (3, 4)


def test_large_pictures_are_shrunk_evenly():
    x = jnp.ones((2, 100, 80, 3)) * jnp.arange(3.0)[None, None, None]
    small = shrunk(x)
    assert small.shape == (2, 25, 20, 3)
    np.testing.assert_allclose(small, jnp.broadcast_to(jnp.arange(3.0)[None, None, None], small.shape), atol=1e-6)
    assert shrunk(jnp.ones((2, 9000))).shape == (2, 9000)


def test_augmentation_changes_each_example_in_its_own_way():
    x = jnp.broadcast_to(
        jnp.asarray(np.random.default_rng(0).uniform(size=(1, 12, 12, 2)), jnp.float32), (3, 12, 12, 2)
    )
    changed = augment(x, jax.random.key(0))
    assert changed.shape == x.shape
    assert not np.allclose(changed[0], changed[1]) and not np.allclose(changed[0], x[0])
    assert changed.min() >= 0 and changed.max() <= x.max() + 1e-6  # interpolated and fainter, not made up
    plain = np.asarray(augment(jnp.ones_like(x), jax.random.key(0)))
    np.testing.assert_allclose(plain, np.broadcast_to(plain[:, :1, :1, :1], plain.shape), rtol=1e-5)
    assert 0.5 <= plain.min() and plain.max() <= 1 and len(np.unique(plain[:, 0, 0, 0])) == 3


def test_a_clip_becomes_one_of_its_frames():
    # The gain is at least 0.5: powers of four tell the frames apart whatever it is.
    clip = jnp.broadcast_to(4.0 ** jnp.arange(5)[None, :, None, None, None], (40, 5, 6, 6, 1))
    frames = np.asarray(augment(clip, jax.random.key(0)))
    assert frames.shape == (40, 1, 6, 6, 1)
    assert set(np.ceil(np.log(frames[:, 0, 0, 0, 0]) / np.log(4) - 1e-6)) == set(range(5))
    np.testing.assert_allclose(frames, np.broadcast_to(frames[:, :, :1, :1], frames.shape), rtol=1e-5)


def test_a_sound_is_moved_and_its_gain_is_a_sum():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 30, 4)), jnp.float32)
    x = jnp.broadcast_to(x, (20, 30, 4))
    for changed in np.asarray(augment(x, jax.random.key(0))):
        gains = {k: np.ptp(changed - np.roll(x[0], k, axis=0)) for k in range(-3, 4)}
        assert min(gains.values()) < 1e-5
    tokens = jnp.ones((2, 30), jnp.int32)
    assert plain_augment(tokens, jax.random.key(0)) is tokens


def test_a_judge_of_waveforms_is_no_larger_than_one_of_pictures():
    """A waveform is halved ten times: with channels that doubled each time it had 181 million weights."""

    def weights(*shape):
        init = jax.eval_shape(Network(10, 0, 64, 16).init, jax.random.key(0), jnp.zeros((1, *shape)))
        return sum(x.size for x in jax.tree.leaves(init))

    assert weights(8000, 1) < 3 * weights(64, 64, 1) < 10**6
    assert weights(64, 64, 1) > 4 * weights(16, 16, 1)  # which grow with their halvings still
