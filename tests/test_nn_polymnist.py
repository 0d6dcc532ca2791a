"""The published networks: equal to plain convolutions, of any size, trained, and their towers kept apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import mmgen_jax as mm
from mmgen_jax.nn.conv import conv_as_matmul, conv_native, double, halve
from mmgen_jax.nn.mlp import DenseDecoder, DenseEncoder
from mmgen_jax.nn.polymnist import ConvDecoder, ConvEncoder, ResNetDecoder, ResNetEncoder, pooled, repeated
from mmgen_jax.nn.towers import Towers

PAIRS = [
    (ConvEncoder(), ConvDecoder),
    (ConvEncoder(hidden=5), ConvDecoder),
    (Towers(ConvEncoder(), private=2), ConvDecoder),
    (ResNetEncoder(4, 1), functools.partial(ResNetDecoder, features=4, halvings=1)),
    (DenseEncoder((8, 8)), functools.partial(DenseDecoder, hidden=8)),
]


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def value_and_grads(form, *args):
    return jax.jit(jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(form(*args))), range(len(args))))(*args)


def assert_equal(form, reference, *args):
    """Of values and of gradients in every argument."""
    np.testing.assert_allclose(jax.jit(form)(*args), jax.jit(reference)(*args), rtol=1e-5, atol=1e-5)
    (_, grads), (_, expected) = value_and_grads(form, *args), value_and_grads(reference, *args)
    for grad, e in zip(grads, expected, strict=True):
        np.testing.assert_allclose(grad, e, rtol=1e-4, atol=1e-4)


def plain(x, kernel, strides, padding, dilation):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dilation, dimension_numbers=layout)


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("size", [(7, 6), (4, 1)])
def test_halve_is_the_strided_convolution(size, outputs):
    x, kernel = normal(0, 2, *size, 3), normal(1, 3, 3, 3, outputs)
    assert_equal(halve, lambda x, k: plain(x, k, (2, 2), [(1, 1)] * 2, None), x, kernel)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("size", [(7, 8), (14, 2), (1, 5)])
def test_double_is_the_transposed_convolution_with_any_output_padding(size, outputs):
    small = tuple(-(-n // 2) for n in size)
    x, kernel = normal(0, 2, *small, 5), normal(1, 3, 3, 5, outputs)
    # Padding k - 1 - p = 1, and output_padding more at the end where the size is even.
    padding = [(1, 1 + (n % 2 == 0)) for n in size]
    reference = lambda x, k: plain(x, k[::-1, ::-1], (1, 1), padding, (2, 2))  # noqa: E731
    assert_equal(lambda x, k: double(x, k, size), reference, x, kernel)


@pytest.mark.parametrize("space", [(9,), (6, 5), (4, 3, 5)])
def test_double_is_the_adjoint_of_halve_in_any_dimension(space):
    x, kernel = normal(0, 1, *space, 2), normal(1, *(3,) * len(space), 2, 4)
    y, back = jax.vjp(lambda x: halve(x, kernel), x)
    g = normal(2, *y.shape)
    np.testing.assert_allclose(double(g, kernel.swapaxes(-1, -2), space), back(g)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [2, 4])
def test_both_forms_of_a_strided_convolution_are_equal(outputs):
    x, kernel, padding = normal(0, 2, 7, 6, 3), normal(1, 3, 2, 3, outputs), [(1, 1), (0, 1)]
    assert_equal(lambda x, k: conv_as_matmul(x, k, padding, 2), lambda x, k: conv_native(x, k, padding, 2), x, kernel)


@pytest.mark.parametrize("encoder, decoder", PAIRS[:4])
def test_the_networks_are_the_same_on_every_platform(monkeypatch, encoder, decoder):
    network, x = mm.Image(9, 5, 3, encoder=encoder, decoder=decoder((9, 5, 3))), normal(0, 2, 9, 5, 3)
    said = []
    for last in (False, True):
        monkeypatch.setattr("mmgen_jax.nn.batch_last.preferred", lambda last=last: last)
        code, params = jax.jit(network.encoder_network(6).init_with_output)(jax.random.key(1), x)
        picture, more = jax.jit(network.decoder_network().init_with_output)(jax.random.key(2), code)
        said.append((code, picture, params, more))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *said)


def test_pooling_counts_what_lies_outside_and_repeating_is_nearest():
    x = jnp.arange(1.0, 10).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(pooled(x)[0, ..., 0], np.array([[12, 16], [24, 28]]) / 9, rtol=1e-6)
    np.testing.assert_array_equal(
        repeated(x, (5, 6))[0, :, :, 0], np.arange(1, 10).reshape(3, 3).repeat(2, 0).repeat(2, 1)[:5]
    )


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_a_model_of_an_odd_size_trains_with_them(encoder, decoder):
    image = mm.Image(9, 5, 1, encoder=encoder, decoder=decoder((9, 5, 1)))
    private = {"image": 2} if isinstance(encoder, Towers) else {}
    model = mm.VAE(modalities={"image": image}, latent=3, private=private)
    batch = mm.Batch({"image": jax.random.uniform(jax.random.key(1), (4, 9, 5, 1))}, {"image": jnp.ones(4, bool)})
    tx = optax.adam(1e-3)
    state = jax.jit(lambda key: mm.TrainState.create(model, tx, key))(jax.random.key(0))
    step = jax.jit(functools.partial(model.step, tx))
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch, jax.random.key(2))  # the same noise, so that losses can be compared
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert model.sample(state.variables, jax.random.key(0), 2)["image"].shape == (2, 9, 5, 1)
    # No convolution on CPU: inside lax.scan its gradient would be 40 to 90 times slower.
    assert "convolution" not in step.lower(state, batch, jax.random.key(0)).as_text()


def test_towers_say_of_each_code_what_its_own_encoder_says():
    """Outputs are the means, then the raw scales, each of the shared code and then of the private one."""
    network = mm.Image(8, 8, 3, encoder=Towers(ConvEncoder(), private=2)).encoder_network(2 * (3 + 2))
    x = normal(0, 1, 8, 8, 3)
    params, apply = jax.jit(network.init)(jax.random.key(1), x)["params"], jax.jit(network.apply)
    reached = []
    for part in ("shared", "own"):
        changed = {**params, part: jax.tree.map(lambda p: p + 1, params[part])}
        reached.append(np.flatnonzero(apply({"params": changed}, x)[0] != apply({"params": params}, x)[0]))
    assert [list(r) for r in reached] == [[0, 1, 2, 5, 6, 7], [3, 4, 8, 9]]
    assert (params["Dense_0"]["kernel"].shape[1], params["Dense_1"]["kernel"].shape[1]) == (6, 4)


def test_networks_compute_in_their_dtype_and_can_be_compared():
    encoder, x = ConvEncoder(hidden=4, dtype=jnp.bfloat16), normal(0, 1, 8, 8, 3)
    assert jax.eval_shape(encoder.init_with_output, jax.random.key(0), x)[0].dtype == jnp.bfloat16
    assert encoder == ConvEncoder(4, jnp.bfloat16) and hash(encoder) == hash(ConvEncoder(4, jnp.bfloat16))
