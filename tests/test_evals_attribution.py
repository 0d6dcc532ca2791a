"""Attribution: of models whose answers follow something known, and of functions with known gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from mmgen_jax.evals.attribution import difference, evidence, integrated_gradients, leave_one_out
from mmgen_jax.modalities import Label, Normal, Vector
from mmgen_jax.types import Batch, Estimate
from mmgen_jax.vae import VAE

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Sum:
    """c = 3 a + b + noise, of what is given; d = the sign of a, or 2 without it; a and b are noise."""

    modalities: FrozenDict = FrozenDict({"a": Vector(1), "b": Vector(1), "c": Vector(1), "d": Label(3)})

    def sample(self, variables, key, n, *, given, targets=None):
        known = {name: jnp.where(given.present[name][:, None], given.values[name], 0) for name in "ab"}
        noise = jax.random.normal(key, (n, 1))
        sign = jnp.where(given.present["a"], (given.values["a"][:, 0] > 0).astype(int), 2)
        made = {"a": noise, "b": noise, "c": 3 * known["a"] + known["b"] + noise, "d": sign}
        return given.completed(made)


def examples(n=50):
    rng = np.random.default_rng(0)
    values = {name: rng.choice([-1.0, 1.0], (n, 1)).astype(np.float32) for name in "abc"}
    return Batch(values | {"d": np.zeros(n, np.int32)}, {name: np.ones(n, bool) for name in "abcd"})


def test_what_is_left_out_of_a_sum():
    found = leave_one_out(Sum(), {}, examples(), KEY)
    assert len(found) == 12
    # Leaving out a changes c by 3, b by 1, both by |3 a + b|, whose mean square is 10 where a and b are independent.
    both = np.sqrt(np.mean((3 * examples().values["a"] + examples().values["b"]) ** 2))
    assert found["a", "c"] == pytest.approx(3 / both, rel=1e-5)
    assert found["b", "c"] == pytest.approx(1 / both, rel=1e-5)
    assert found["d", "c"] == 0
    assert found["a", "d"] == 1 and found["b", "d"] == found["c", "d"] == 0
    assert found["b", "a"] == found["c", "a"] == 0  # nothing changes it at all


def test_what_is_missing_is_not_given():
    batch = examples()
    some = Batch(batch.values, {**batch.present, "b": np.zeros(50, bool)})
    found = leave_one_out(Sum(), {}, some, KEY)
    assert found["a", "c"] == pytest.approx(1) and found["b", "c"] == 0


def test_differences():
    assert difference(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 0])) == 0.5
    assert difference(np.array([0.0, 3.0]), np.array([4.0, 3.0])) == pytest.approx(np.sqrt(8))


def test_integrated_gradients_share_out_the_difference():
    x, b = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)

    def linear(x):
        return x @ jnp.arange(4.0)

    np.testing.assert_allclose(integrated_gradients(linear, x, b, steps=1), (x - b) * np.arange(4), rtol=1e-5)

    def curved(x):
        return jnp.tanh(x).prod(axis=-1)

    found = integrated_gradients(curved, x, b, steps=200)
    np.testing.assert_allclose(found.sum(-1), curved(x) - curved(b), atol=1e-4)
    with pytest.raises(ValueError, match="steps is 0, but must be at least 1"):
        integrated_gradients(curved, x, b, steps=0)


@dataclasses.dataclass(frozen=True)
class Regression:
    """c ~ N(3 a + b + d, 1)."""

    modalities: FrozenDict = Sum.modalities

    def log_likelihood(self, variables, batch, key, of, draws=None):
        a, b, d = (jnp.where(batch.present[name], batch.values[name].reshape(-1), 0) for name in "abd")
        error = batch.values["c"][:, 0] - (3 * a + b + d)
        return Estimate(-0.5 * error**2, jnp.zeros(len(batch)))


def test_the_evidence_is_the_change_of_the_likelihood():
    """By the closed form of a quadratic: every share is the slope half-way times the change."""
    batch = examples()
    batch.values["a"][0] = np.nan
    batch = Batch(batch.values, {**batch.present, "a": np.arange(50) > 0})
    found = evidence(Regression(), {}, batch, KEY, "c", steps=1)
    assert set(found) == {"a", "b"}
    a, b, c = (np.asarray(batch.masked().values[name])[:, 0] for name in "abc")
    mean = {"a": a[1:].mean(), "b": b.mean()}
    half_way = c - (3 * (a + mean["a"]) / 2 * (np.arange(50) > 0) + (b + mean["b"]) / 2)
    np.testing.assert_allclose(found["b"][:, 0], half_way * (b - mean["b"]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["a"][1:, 0], 3 * half_way[1:] * (a[1:] - mean["a"]), rtol=1e-4, atol=1e-5)
    assert found["a"][0, 0] == 0  # it is not there


def test_the_evidence_of_a_vae_sums_to_how_probable_its_answer_becomes():
    parts = {"x": Vector(2, likelihood=Normal(1.0), features=4), "l": Label(3)}
    model = VAE(modalities=parts, latent=1)
    values = {"x": np.random.default_rng(0).random((4, 2), np.float32), "l": np.arange(4) % 3}
    batch = Batch(values, dict.fromkeys(parts, np.ones(4, bool)))
    variables = {"params": jax.jit(model.init)(KEY)[0]}
    found = jax.jit(lambda batch: evidence(model, variables, batch, KEY, "l", steps=20, draws=20))(batch)
    middle = {"x": np.tile(values["x"].mean(0), (4, 1)), "l": values["l"]}
    ends = [model.log_predictive(variables, Batch(v, batch.present), KEY, "l", 20) for v in (values, middle)]
    np.testing.assert_allclose(found["x"].sum(1), ends[0] - ends[1], rtol=0.02, atol=1e-4)
