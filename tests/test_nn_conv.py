"""The two forms of a convolution are one; down and up are adjoint; any size and channel count goes through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mmgen_jax.nn.conv import (
    ConvDecoder,
    ConvEncoder,
    Down,
    Up,
    conv_as_matmul,
    conv_native,
    depth_to_space,
    halvings,
    space_to_depth,
)

SPACES = [(9,), (6, 5), (4, 3, 5)]


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("outputs", [2, 4])
def test_both_forms_have_equal_values_and_gradients(space, outputs):
    x, kernel = normal(0, 2, *space, 3), normal(1, *(2,) * len(space), 3, outputs)
    padding = [(1, 0)] * len(space)

    def loss(form):
        return lambda x, kernel: jnp.sum(jnp.sin(form(x, kernel, padding)))

    value, grads = jax.jit(jax.value_and_grad(loss(conv_as_matmul), (0, 1)))(x, kernel)
    expected, expected_grads = jax.jit(jax.value_and_grad(loss(conv_native), (0, 1)))(x, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for g, e in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_space_to_depth_is_inverted_and_keeps_blocks_together(space):
    space = tuple(2 * n for n in space)
    x = normal(0, 2, *space, 3)
    cells = space_to_depth(x, (2,) * len(space))
    np.testing.assert_array_equal(depth_to_space(cells, (2,) * len(space)), x)
    first = x[(0, *(slice(0, 2) for _ in space))].reshape(-1)
    np.testing.assert_array_equal(cells[(0, *(0 for _ in space))], first)


@pytest.mark.parametrize(("n", "causal"), [(5, False), (6, False), (1, False), (5, True), (6, True), (1, True)])
def test_down_is_the_strided_convolution_of_its_equation(n, causal):
    x, stride = normal(0, 2, n, 3), 1 if n == 1 else 2
    layer = Down(4, (stride,), causal=causal)
    params = layer.init(jax.random.key(1), x)
    kernel = params["params"]["ConvOnCells_0"]["kernel"].reshape(-1, 3, 4)  # (cell, offset) -> k = 0..3
    padding = [(1 + causal, 1 - causal + n % 2)] if stride == 2 else [(0, 0)]
    expected = lax.conv_general_dilated(x, kernel, (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC"))
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(7,), (6, 1), (3, 4, 5)])
def test_up_is_linear_with_the_reach_of_the_adjoint_of_down(size):
    small = tuple(-(-n // 2) for n in size)
    x = normal(0, 1, *small, 2)
    layer = Up(3, size)
    params = layer.init(jax.random.key(1), x)
    jacobian = jax.jit(jax.jacobian(lambda x: layer.apply(params, x[None, ..., None].repeat(2, -1))[0, ..., 0]))(
        x[0, ..., 0]
    )
    assert jacobian.shape == (*size, *small)
    for out in np.ndindex(*size):
        for i in np.ndindex(*small):
            reached = all(2 * j - 1 <= o <= 2 * j + 2 if n > 1 else True for o, j, n in zip(out, i, size, strict=True))
            assert (jacobian[out + i] != 0) == reached


@pytest.mark.parametrize("space", [(28, 28), (7,), (1,), (1, 1), (8, 32, 32), (2, 9, 5)])
@pytest.mark.parametrize("channels", [1, 5])
def test_any_size_and_channel_count_and_a_batch_of_one(space, channels):
    x = normal(0, 1, *space, channels)
    encoder, decoder = ConvEncoder(6, 4), ConvDecoder((*space, channels), 4)

    @jax.jit  # op by op takes ten times as long
    def there_and_back(x):
        code = encoder.init_with_output(jax.random.key(1), x)[0]
        return code, decoder.init_with_output(jax.random.key(2), code)[0]

    code, out = there_and_back(x)
    assert code.shape == (1, 6) and bool(jnp.isfinite(code).all())
    assert out.shape == x.shape and float(jnp.abs(out).max()) > 0


def test_folding_keeps_shapes_and_reaches_every_pixel():
    x = normal(0, 1, 7, 6, 2)
    encoder, decoder = ConvEncoder(3, 4, fold=(2, 2)), ConvDecoder((7, 6, 2), 4, fold=(2, 2))
    params = jax.jit(encoder.init)(jax.random.key(1), x)
    grad = jax.jit(jax.grad(lambda x: encoder.apply(params, x)[0, 0]))(x)
    assert bool((grad != 0).all())
    assert jax.eval_shape(decoder.init_with_output, jax.random.key(2), jnp.zeros((1, 3)))[0].shape == x.shape


def test_widths_scale_and_sizes_halve():
    assert halvings((28, 28)) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert halvings((8, 32, 32)) == [(8, 32, 32), (4, 16, 16), (2, 8, 8), (1, 4, 4)]
    shapes = jax.eval_shape(ConvEncoder(2, 16).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    assert [shapes[f"Down_{i}"]["ConvOnCells_0"]["bias"].shape for i in range(4)] == [(16,), (32,), (64,), (128,)]


def test_no_convolution_primitive_is_left_in_a_training_step_on_cpu():
    """Inside lax.scan their gradients are 40 to 90 times slower on CPU."""
    encoder, x = ConvEncoder(3, 4), normal(0, 2, 8, 8, 1)
    params = encoder.init(jax.random.key(0), x)
    step = jax.jit(jax.grad(lambda p: encoder.apply(p, x).sum()))
    assert "convolution" not in step.lower(params).as_text()


def test_compute_dtype_is_bfloat16_while_parameters_stay_float32():
    encoder, x = ConvEncoder(3, 4, dtype=jnp.bfloat16), normal(0, 2, 8, 8, 1)
    params = encoder.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert encoder.apply(params, x).dtype == jnp.bfloat16
