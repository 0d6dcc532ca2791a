"""Barriers that last: values and gradients are the same, and what is kept is not computed again."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.materialized import compiler_options, materialized
from mmgen_jax.nn.dit import DiTBlock, Stack

LAYERS = 6
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends fuse by rules of their own")


def stream(keep, weights, x):
    """A residual stream as a transformer has it, each layer of which reads the stream through a norm."""
    for w in weights:
        x = keep(x + jnp.tanh(2 * x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True)) @ w))
    return x


def gradient(keep, options):
    weights, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((LAYERS, 128, 128), (256, 128)))
    loss = jax.grad(lambda weights, x: jnp.square(stream(keep, weights, x)).mean(), argnums=(0, 1))
    return jax.jit(loss, compiler_options=options).lower(weights, x).compile()


def test_values_and_gradients_are_those_without():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(LAYERS, 128, 128)).astype(np.float32) / 11, rng.normal(size=(256, 128))
    plain, kept = gradient(lambda x: x, None), gradient(materialized, compiler_options())
    for a, b in zip(plain(weights, np.float32(x)), kept(weights, np.float32(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@on_cpu
def test_barriers_last_until_the_end_with_the_options_alone():
    assert gradient(materialized, compiler_options()).as_text().count(" opt-barrier(") == 2 * LAYERS
    assert " opt-barrier(" not in gradient(materialized, None).as_text()


@on_cpu
def test_no_kernel_of_a_transformer_reads_what_many_layers_added():
    stack = Stack(DiTBlock(heads=2), LAYERS)
    x, c = jax.ShapeDtypeStruct((4, 16, 64), jnp.float32), jax.ShapeDtypeStruct((4, 1, 64), jnp.float32)
    params = jax.eval_shape(stack.init, jax.random.key(0), x, c)
    loss = jax.grad(lambda params, x, c: jnp.square(stack.apply(params, x, c)).mean())

    text = jax.jit(loss, compiler_options=compiler_options()).lower(params, x, c).compile().as_text()
    inputs = [len(re.findall(r"%[\w.-]+", call)) for call in re.findall(r" fusion\(([^)]*)\)", text)]
    assert 1 <= max(inputs) < 2 * LAYERS  # with jax 0.10 and no barriers, more


def test_trees_go_through():
    tree = {"a": jnp.arange(3), "b": (jnp.ones(2),)}
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), tree, materialized(tree)))
