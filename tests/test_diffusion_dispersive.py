"""Dispersive loss: its value by hand, that it pushes features apart, and which blocks it reaches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import random_batch

from mmgen_jax.diffusion import Dispersive, Euler, Flow, MeanFlow
from mmgen_jax.modalities import Label, Vector

MODEL = Flow(modalities={"a": Vector(2), "label": Label(3)}, width=16, joint=1, depth=2, heads=2,
             representation=Dispersive(depth=0.7))  # fmt: skip
TOKENS = jnp.array([[[0.0], [0.0]], [[2.0], [0.0]], [[0.0], [2.0]]])  # three examples of two tokens
ALL = {"a": np.ones(3, bool), "b": np.zeros(3, bool)}


def error(tokens, present=ALL, **fields):
    return Dispersive(**fields).error({}, tokens, {}, present, None)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_value_by_hand(temperature):
    near, far = np.exp(-np.array([4 / 2, 8 / 2]) / temperature)  # of the first to the others, and of these two
    expected = np.log((3 + 4 * near + 2 * far) / 9)
    np.testing.assert_allclose(error(TOKENS, temperature=temperature), np.full(3, expected), rtol=1e-6)


def test_pairs_are_of_examples_of_which_anything_is_there():
    present = {"a": np.array([True, False, False]), "b": np.array([True, True, False])}
    expected = np.log((2 + 2 * np.exp(-2 / 0.5)) / 4)
    np.testing.assert_allclose(error(TOKENS, present), np.full(3, expected), rtol=1e-6)
    nothing = {"a": np.zeros(3, bool)}
    value, gradient = jax.value_and_grad(lambda tokens: error(tokens, nothing).sum())(TOKENS)
    assert value == 0 and not gradient.any()
    assert error(TOKENS[:1], {"a": np.ones(1, bool)}) == 0  # one example has no other to keep away from


def test_it_falls_as_features_spread_and_pushes_them_apart():
    values = [error(scale * TOKENS)[0] for scale in (0.0, 0.5, 1.0, 2.0)]
    assert values[0] == 0 and all(np.diff(values) < 0)
    push = -jax.grad(lambda tokens: error(tokens).mean())(TOKENS)
    assert push[1, 0] > 0 and push[2, 1] > 0 and (push[0] < 0).all()


def test_large_features_in_half_precision_are_told_apart():
    tokens = (100 + jnp.arange(4.0)).astype(jnp.bfloat16).reshape(4, 1, 1) * jnp.ones((1, 3, 5), jnp.bfloat16)
    expected = np.log(np.exp(-np.square(np.subtract.outer(range(4), range(4))) / 0.5).mean())
    np.testing.assert_allclose(error(tokens, {"a": np.ones(4, bool)}), expected, rtol=1e-2)


@functools.cache
def gradients():
    """Of the dispersive loss alone; the whole loss and its terms."""

    def loss(params):
        total, terms = MODEL.loss(params, random_batch(MODEL.modalities, 4), jax.random.key(1))
        return terms["representation"].mean(), (total, terms)

    rng, shapes = np.random.default_rng(0), jax.eval_shape(lambda: MODEL.init(jax.random.key(0))[0])
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    return jax.jit(jax.grad(loss, has_aux=True))(params)


def test_gradients_reach_the_blocks_before_the_tap_and_no_other():
    """Two of three blocks: the joint one, and the first of those for all."""
    found, _ = gradients()
    kernels = {name: found[name]["layers"] for name in ("joint", "shared")}
    first, *later = kernels["shared"]["stream"]["qkv"]["kernel"]
    assert first.any() and not np.any(later)
    assert kernels["joint"]["a"]["qkv"]["kernel"].any() and kernels["joint"]["label"]["qkv"]["kernel"].any()
    assert all(leaf.any() for leaf in jax.tree.leaves((found["a_in"], found["label_in"])))
    assert not any(leaf.any() for leaf in jax.tree.leaves((found["a_out"], found["label_out"])))


def test_it_is_added_with_its_weight():
    _, (total, terms) = gradients()
    extra = terms["representation"]
    np.testing.assert_allclose(total, terms["loss/a"] + terms["loss/label"] + 0.5 * extra, rtol=1e-5)
    assert (extra < 0).all() and (extra == extra[0]).all()


def test_it_goes_with_an_objective_that_is_differentiated_by_time():
    model = dataclasses.replace(MODEL, objective=MeanFlow(), sampler=Euler())
    params = jax.eval_shape(lambda: model.init(jax.random.key(0))[0])
    _, terms = jax.eval_shape(model.loss, params, random_batch(MODEL.modalities, 4), jax.random.key(0))
    assert terms["representation"].shape == (4,)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weight": -1.0}, "weight is -1.0, but must be at least 0"),
        ({"temperature": 0.0}, "temperature is 0.0, but must be positive"),
        ({"depth": 0.0}, "depth is 0.0, but must be above 0 and at most 1"),
    ],
)
def test_what_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=f"Dispersive: {sentence}"):
        Dispersive(**fields)
