"""Linear probe, k-means and what is said of a model's codes, on codes whose answers are known."""

import dataclasses
import re

import evals_fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from mmgen_jax.evals import Latents, probe, sampling
from mmgen_jax.evals.latents import SHARED, accuracies, means
from mmgen_jax.evals.metrics import tiles
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.nn.kmeans import kmeans, nearest
from mmgen_jax.nn.kmeans import start as first_centres
from mmgen_jax.types import Batch, EvalData

KEY, KINDS = jax.random.key(0), ("probe", "knn", "cluster")
CLASSES = 4
CORNERS = np.array([[3.0, 0], [0, 3], [-3, 0], [0, -3]], np.float32)
MODALITIES = FrozenDict({"far": Vector(2), "near": Vector(2), "noise": Vector(2), "label": Label(CLASSES)})


@dataclasses.dataclass(frozen=True)
class Coded:
    """Its code is the sum of what is given: corners far apart, corners close together beside a wide line, or noise."""

    modalities: FrozenDict = MODALITIES

    def codes(self, params, batch, key):
        assert key is None
        total = params["shift"] + sum(batch.values[name] for name in ("far", "near", "noise"))
        return {SHARED: total, "near": batch.values["near"][:, :1]}


VARIABLES = {"params": {"shift": np.zeros((1, 2), np.float32)}}


def split(n: int, seed: int, absent: dict[str, np.ndarray] | None = None) -> Batch:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, n).astype(np.int32)
    # Lines beside one another: a plane tells the classes, but clusters follow the length of the lines.
    lines = np.stack([classes + rng.uniform(-0.2, 0.2, n), rng.uniform(-100, 100, n)], axis=1)
    values = {
        "far": CORNERS[classes] + 0.1 * rng.normal(size=(n, 2)),
        "near": lines,
        "noise": rng.normal(size=(n, 2)),
    }
    present = {name: np.ones(n, bool) for name in MODALITIES} | (absent or {})
    return Batch({name: x.astype(np.float32) for name, x in values.items()} | {"label": classes}, present)


def data(tmp_path, **absent) -> EvalData:
    return EvalData(split(600, 0), split(300, 1, absent), tmp_path)


def test_known_codes_have_known_accuracies(tmp_path):
    values = Latents()(Coded(), VARIABLES, data(tmp_path), KEY)
    kinds = [f"latents/{kind}/{given}" for given in ("far", "near", "noise", "far+near+noise") for kind in KINDS]
    assert list(values) == kinds  # neither the label nor pairs
    assert values["latents/probe/far"] == 1 and values["latents/cluster/far"] > 0.9 and values["latents/knn/far"] == 1
    assert values["latents/probe/near"] > 0.95 and values["latents/cluster/near"] < 0.4
    for kind in KINDS:
        assert values[f"latents/{kind}/noise"] == pytest.approx(1 / CLASSES, abs=0.1)


def test_all_sets(tmp_path):
    values = Latents(subsets="all", runs=1)(Coded(), VARIABLES, data(tmp_path), KEY)
    assert len(values) == 3 * (2**3 - 1) and "latents/cluster/far+noise" in values


@pytest.mark.parametrize("names", [("far", "label"), ("far",)], ids=["a modality", "beside the model"])
def test_a_label_may_be_a_modality_or_stand_beside_the_model(tmp_path, names):
    class Far(Coded):
        def codes(self, params, batch, key):
            assert set(batch.values) == set(names)
            return {SHARED: batch.values["far"]}

    model = Far(FrozenDict({name: MODALITIES[name] for name in names}))
    values = Latents(runs=1)(model, VARIABLES, data(tmp_path), KEY)
    assert list(values) == [f"latents/{kind}/far" for kind in KINDS] and values["latents/probe/far"] == 1


def test_only_what_is_given_and_there_is_looked_at(tmp_path):
    there = np.arange(300) < 200
    spoiled = data(tmp_path, far=there, label=np.arange(300) < 250)
    spoiled.test.values["far"][200:] = np.nan
    spoiled.test.values["label"][250:] = -7
    values = Latents(limit=300)(Coded(), VARIABLES, spoiled, KEY)
    assert values["latents/probe/far"] == 1 and np.isfinite(list(values.values())).all()
    nothing = data(tmp_path, near=np.zeros(300, bool))
    assert {name.rpartition("/")[2] for name in Latents()(Coded(), VARIABLES, nothing, KEY)} == {"far", "noise"}
    unlabelled = data(tmp_path, label=np.zeros(300, bool))
    assert Latents()(Coded(), VARIABLES, unlabelled, KEY) == {}


def test_means_come_in_batches_by_one_program(monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 8)
    traced = []

    class Counting(Coded):
        def codes(self, params, batch, key):
            traced.append(len(batch))
            return super().codes(params, batch, key)

    model, batch = Counting(), split(21, 0)
    for given in (("far",), ("far", "noise")):
        codes = means(model, VARIABLES, batch, given)
        np.testing.assert_allclose(codes[SHARED], sum(batch.values[name] for name in given), rtol=1e-6)
        assert not codes["near"].any()
    assert traced == [8]


def test_one_program_serves_every_set(tmp_path):
    before = accuracies._cache_size()
    Latents(runs=3)(Coded(), VARIABLES, data(tmp_path, near=np.arange(300) < 100), KEY)
    assert accuracies._cache_size() <= before + 1


@pytest.mark.parametrize("used", [np.ones(90, bool), np.arange(90) % 3 > 0], ids=["all", "some"])
def test_the_probe_is_at_the_one_optimum(used):
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(90, 3)) * (1, 20, 0.1) + 5).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=90) > 5).astype(np.int32) + (x[:, 1] > 20)
    x[~used] = 1e6  # what is not used says nothing
    fitted = jax.jit(probe.fit, static_argnums=3)(x, y, used, 3)
    seen, truth = x[used].astype(np.float64), np.eye(3)[y[used]]
    standard = (seen - seen.mean(0)) / seen.std(0)
    logits = standard @ np.asarray(fitted["kernel"], np.float64) + np.asarray(fitted["bias"])
    odds = np.exp(logits - logits.max(1, keepdims=True))
    wrong = odds / odds.sum(1, keepdims=True) - truth
    # The gradient of sum_i -log p(y_i | x_i) + |W|^2 / 2 is zero.
    np.testing.assert_allclose(standard.T @ wrong + fitted["kernel"], 0, atol=0.02)
    np.testing.assert_allclose(wrong.sum(0), 0, atol=0.02)
    np.testing.assert_allclose(probe.logits(fitted, jnp.asarray(x[used])), logits, atol=1e-3)


def test_a_probe_of_what_never_changes_says_the_most_frequent_class():
    x, y = np.full((10, 2), 7.0, np.float32), np.array([1] * 7 + [0] * 3, np.int32)
    fitted = probe.fit(x, y, np.ones(10, bool), 2)
    assert (probe.logits(fitted, jnp.asarray(x)).argmax(-1) == 1).all()
    np.testing.assert_allclose(jax.nn.softmax(fitted["bias"])[1], 0.7, atol=1e-3)


def test_the_nearest_vote(monkeypatch):
    """Against the full matrix, whatever the size of the blocks, the unit of the codes and their origin."""
    rng = np.random.default_rng(4)
    x, known, y = rng.normal(size=(23, 3)), rng.normal(size=(50, 3)), rng.integers(0, 4, 50)
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x - known.mean(0), known - known.mean(0))]
    cosine = unit[0] @ unit[1].T
    order = np.argsort(-cosine, axis=1)[:, :5]
    votes = np.exp(np.take_along_axis(cosine, order, axis=1) / 0.07)[..., None] * np.eye(4)[y[order]]
    expected = votes.sum(1).argmax(1)
    np.testing.assert_array_equal(probe.vote(x, known, y, 5), expected)
    monkeypatch.setattr(tiles, "ROOM", 3 * 50)
    monkeypatch.setattr(tiles, "TILE", 7)
    np.testing.assert_array_equal(probe.vote(100 * x + 7, 100 * known + 7, y, 5), expected)
    np.testing.assert_array_equal(probe.vote(x, known, y, 1), y[order[:, 0]])
    np.testing.assert_array_equal(probe.vote(x[:1], known[:2], np.array([3, 3]), 5), [3])  # fewer than five
    with pytest.raises(ValueError, match="k is 0, but must be at least 1"):
        probe.vote(x, known[:0], y[:0])


def test_centres_are_the_means_of_what_is_nearest():
    x = np.asarray(split(200, 5).values["noise"])
    used = np.arange(200) % 5 > 0
    x[~used] = 1e4
    centres = np.asarray(jax.jit(kmeans, static_argnums=3)(KEY, x, used, 3))
    to = np.asarray(nearest(jnp.asarray(centres), jnp.asarray(x)))
    np.testing.assert_array_equal(to[used], np.square(x[used, None] - centres[None]).sum(-1).argmin(1))
    for k in range(3):
        np.testing.assert_allclose(centres[k], x[used & (to == k)].mean(0), atol=1e-5)


def test_first_centres_are_used_examples_far_apart():
    x = np.repeat(CORNERS, 20, axis=0)
    used = np.ones(80, bool)
    for seed in range(5):
        centres = np.asarray(first_centres(jax.random.key(seed), jnp.asarray(x), used, CLASSES))
        np.testing.assert_array_equal(np.unique(centres, axis=0), np.unique(CORNERS, axis=0))
    # Two places, but four centres: some stand twice, and none where nothing is used.
    used = np.arange(80) < 40
    centres = np.asarray(first_centres(KEY, jnp.asarray(x), used, CLASSES))
    assert {tuple(c) for c in centres} == {tuple(c) for c in CORNERS[:2]}


def test_a_model_without_codes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Latents needs a model with a method codes\(\), which Model has not"):
        Latents()(evals_fakes.Model(), {}, evals_fakes.data(tmp_path), KEY)


@pytest.mark.parametrize("names", [("far", "near"), ("label",)])
def test_a_label_and_something_else_are_needed(tmp_path, names):
    model = Coded(FrozenDict({name: MODALITIES[name] for name in names}))
    part = split(10, 0)
    part = Batch(*({name: x[name] for name in names} for x in (part.values, part.present)))
    message = re.escape(f"Latents needs 'label' and another modality, but there is only {list(names)}")
    with pytest.raises(ValueError, match=message):
        Latents()(model, VARIABLES, EvalData(part, part, tmp_path), KEY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subsets": "pairs"}, 'Latents: subsets must be "all" or "single", not \'pairs\''),
        ({"runs": 0}, "Latents: runs must be at least 1, not 0"),
        ({"clusters": 0}, "Latents: clusters must be at least 1, not 0"),
    ],
)
def test_fields_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        Latents(**fields)
