"""Noise levels in training: the rules, two levels within a modality, and that they reach the loss value by value."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import random_batch

from mmgen_jax.diffusion import Flow, MinSNR, Times
from mmgen_jax.diffusion.network import value_times
from mmgen_jax.diffusion.training import corrupted
from mmgen_jax.modalities import Image, Label, Text
from mmgen_jax.rng import fold_name

COUNTS = {"image": 16, "label": 1}
MODALITIES = {"image": Image(4, 4, 1, patch=2), "text": Text(3)}


@dataclasses.dataclass(frozen=True)
class Always:
    """A density of one single time."""

    t: float

    def sample(self, key, shape, dtype=float):
        return jnp.full(shape, self.t, dtype)


def drawn(n=4000, **fields):
    """Times of an image that half of the examples have, and of a label that all have."""
    present = {"image": jnp.arange(n) % 2 == 0, "label": jnp.ones(n, bool)}
    return {name: np.asarray(t) for name, t in Times(**fields).draw(jax.random.key(0), present, COUNTS).items()}


def test_one_time_a_modality_where_tokens_is_zero():
    t = drawn()
    assert t["image"].shape == t["label"].shape == (4000,)
    assert (t["image"][1::2] == 1).all()  # not there
    together = drawn(independent=0.0, shared=1.0)
    np.testing.assert_array_equal(together["image"][::2], together["label"][::2])


def test_tokens_have_one_of_two_times():
    one, two = drawn(), drawn(tokens=1.0)
    assert two["image"].shape == (4000, 16) and two["label"].shape == (4000, 1)
    first = two["image"] == one["image"][:, None]
    for t, known in zip(two["image"], first, strict=True):
        assert len(np.unique(t[~known])) <= 1
    way = (one["image"] > 0) & (one["image"] < 1)
    assert first[~way].all()  # what is given, and what is not there, is whole
    share = first[way].mean(axis=1)
    np.testing.assert_allclose([share.mean(), share.std()], [1 / 2, 12**-0.5], atol=0.04)  # uniform
    half = drawn(tokens=0.5)["image"][way]
    np.testing.assert_allclose((half != half[:, :1]).any(axis=1).mean(), 0.5 * 15 / 17, atol=0.04)


def test_the_second_time_is_zero_where_something_is_given_and_drawn_where_not():
    given, free = (drawn(independent=x, shared=0.0, tokens=1.0)["label"][::2, 0] for x in (0.0, 1.0))
    assert 0.3 < (given == 0).mean() < 0.7
    assert (free > 0).all() and (free < 1).all()
    np.testing.assert_allclose(np.mean(np.log(free / (1 - free))), 0, atol=0.1)  # still of the density


def model(**fields):
    return Flow(modalities=MODALITIES, width=16, joint=0, depth=1, heads=2, times=Times(**fields))


def shaken(params):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.2 * jnp.asarray(rng.normal(size=x.shape), x.dtype), params)


@functools.cache
def fresh():
    return jax.jit(model().init)(jax.random.key(0))[0]


def loss(model, params, batch):
    return jax.jit(lambda p: model.loss(p, batch.masked(), jax.random.key(1))[1])(params)


def test_two_equal_times_are_one():
    """All that differs is how the network is told."""
    batch = random_batch(MODALITIES, 8, present=0.8)
    rules = {"independent": 1.0, "shared": 0.0, "density": Always(0.4)}
    one, two = (loss(model(**rules, tokens=tokens), shaken(fresh()), batch) for tokens in (0.0, 1.0))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4)


def test_every_value_counts_by_the_time_of_its_token():
    """At first the network says 0, so that the error is the target itself."""
    flow = dataclasses.replace(model(tokens=1.0, independent=1.0, shared=0.0), weighting=MinSNR())
    batch, key, n = random_batch(MODALITIES, 64), jax.random.key(1), 64
    found = loss(flow, fresh(), batch)
    t = flow.times.draw(fold_name(key, "times"), batch.present, {"image": 4, "text": 3})
    noise = flow.noise(fold_name(key, "noise"), n)
    each = np.kron(np.asarray(t["image"]).reshape(n, 2, 2), np.ones((1, 2, 2)))[..., None]  # four patches of 2 x 2
    assert len(np.unique(each)) > n  # two a picture, where it is on its way
    target = noise["image"] - (2 * batch.values["image"] - 1)
    weight = np.asarray(flow.weighting(flow.path.coefficients(jnp.asarray(each)), "velocity"))
    expected = np.where(each > 0, weight * np.square(target), 0).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found["loss/image"], expected, rtol=1e-4)
    np.testing.assert_allclose(np.unique(np.round(found["loss/text"], 3)), [0, 4.575], atol=1e-3)  # ln 97 where hidden


def test_values_of_a_token_at_time_zero_are_as_they_were():
    t = jnp.asarray([[0.0, 1.0, 0.5, 0.0]])
    x, noise = jax.random.normal(jax.random.key(0), (2, 1, 4, 4, 1))
    seen = corrupted(model(), {"image": x}, {"image": noise}, jax.random.key(1), {"image": t})["image"]
    np.testing.assert_array_equal(seen[0, :2, :2], x[0, :2, :2])
    np.testing.assert_array_equal(seen[0, :2, 2:], noise[0, :2, 2:])
    np.testing.assert_allclose(seen[0, 2:, :2], (x + noise)[0, 2:, :2] / 2, rtol=1e-6)
    assert value_times(Label(3), jnp.ones((5, 1))).shape == (5,)


def test_what_is_refused():
    with pytest.raises(ValueError, match="tokens is 1.5, but must be from 0 to 1"):
        Times(tokens=1.5)
