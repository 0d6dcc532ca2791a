"""With the batch as the last axis layers compute what they do with it first, and so do their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.gan import DCGAN, R3GAN, SNGAN, SPADE, BigGAN, Patches, ResNet, UNet
from mmgen_jax.nn import batch_last, conv
from mmgen_jax.nn.channels import Dense, GroupNorm, RMSNorm
from mmgen_jax.nn.grid import GridDecoder, GridEncoder

SPACES = [(9,), (7, 8), (1, 5), (4, 3, 5)]


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def assert_equal(last, first, *args):
    """Values and gradients in every argument; the first argument of `last` and its result have the batch last."""

    def told(form):
        def loss(*args):
            y = form(*args)
            return jnp.sin(y).sum(), y

        return jax.jit(jax.value_and_grad(loss, range(len(args)), has_aux=True))(*args)

    said, expected = told(lambda x, *rest: last(x.swapaxes(0, -1), *rest).swapaxes(0, -1)), told(first)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), said, expected)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("inputs, outputs", [(2, 4), (4, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (1, 1)])
def test_convolutions(space, inputs, outputs, padding):
    """Both forms, in which the output has fewer, as many, and more places."""
    size = tuple(min(n, 2) for n in space)
    around = [padding if k == 2 else (0, 0) for k in size]
    x, kernel = normal(0, 3, *space, inputs), normal(1, int(np.prod(size)) * inputs, outputs)
    assert_equal(
        lambda x, k: batch_last.conv(x, k, size, around),
        lambda x, k: conv.conv(x, k.reshape(*size, inputs, outputs), around),
        x,
        kernel,
    )


@pytest.mark.parametrize("space", SPACES)
def test_halving_and_doubling(space):
    kernel, small = normal(1, 3 ** len(space) * 3, 5), tuple(-(-n // 2) for n in space)
    full = (*(3,) * len(space), 3, 5)
    x, y = normal(0, 2, *space, 3), normal(2, 2, *small, 3)
    assert_equal(batch_last.halve, lambda x, k: conv.halve(x, k.reshape(full)), x, kernel)
    assert_equal(
        lambda y, k: batch_last.double(y, k, space), lambda y, k: conv.double(y, k.reshape(full), space), y, kernel
    )


@pytest.mark.parametrize("space", [(6,), (4, 2), (2, 4, 6)])
def test_cells_are_taken_apart_in_the_same_order(space):
    x, strides = normal(0, 2, *space, 3), (2,) * len(space)
    cells = batch_last.space_to_depth(x.swapaxes(0, -1), strides)
    np.testing.assert_array_equal(cells.swapaxes(0, -1), conv.space_to_depth(x, strides))
    np.testing.assert_array_equal(batch_last.depth_to_space(cells, strides), x.swapaxes(0, -1))


def test_the_norm_is_of_the_channels_of_each_cell():
    x, scale = normal(0, 2, 4, 3, 5), normal(1, 5)
    assert_equal(
        lambda x, s: RMSNorm(last=True).apply({"params": {"scale": s}}, x),
        lambda x, s: x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * s.reshape(1, 1, 1, 5),
        x,
        scale,
    )
    y = RMSNorm(jnp.bfloat16).apply({"params": {"scale": scale}}, 300 * x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y, RMSNorm().apply({"params": {"scale": scale}}, x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("last", [False, True])
def test_the_norm_of_groups_is_of_all_of_space(last):
    x, scale, bias = normal(0, 2, 4, 3, 6), normal(1, 6), normal(2, 6)
    params = {"params": {"scale": scale, "bias": bias}}
    y = GroupNorm(3, last=last).apply(params, x.swapaxes(0, -1) if last else x)
    y = y.swapaxes(0, -1) if last else y
    parts = np.asarray(x).reshape(2, 12, 3, 2)
    expected = (parts - parts.mean((1, 3), keepdims=True)) / np.sqrt(parts.var((1, 3), keepdims=True) + 1e-6)
    expected = expected.reshape(x.shape) * np.asarray(scale) + np.asarray(bias)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_dense_is_of_each_cell():
    x, kernel, bias = normal(0, 2, 5, 3), normal(1, 3, 4), normal(2, 4)
    assert_equal(
        lambda x, w, b: Dense(4, last=True).apply({"params": {"kernel": w, "bias": b}}, x),
        lambda x, w, b: Dense(4).apply({"params": {"kernel": w, "bias": b}}, x),
        x,
        kernel,
        bias,
    )
    plain = {"params": {"kernel": kernel}}
    np.testing.assert_allclose(Dense(4, bias=False).apply(plain, x), x @ kernel, rtol=1e-5, atol=1e-6)


CODE = 5  # numbers that say what is to be made, beside what a network makes it of
NETWORKS = {
    "encoder": (lambda: conv.ConvEncoder(3, 4), (9, 5, 2)),
    "clip encoder": (lambda: conv.ConvEncoder(3, 4, fold=(2, 1, 1)), (5, 9, 6, 2)),
    "decoder": (lambda: conv.ConvDecoder((9, 5, 2), 4), (6,)),
    "sound decoder": (lambda: conv.ConvDecoder((40, 1), 4, fold=(4,)), (6,)),
    "grid encoder": (lambda: GridEncoder(2, (4, 8), 1, outputs=2 * 5 * 3 * 2), (9, 5, 2)),
    "grid decoder": (lambda: GridDecoder((9, 5, 2), (4, 8), 1), (30,)),
    "causal grid decoder": (lambda: GridDecoder((4, 5, 3, 2), (4, 8), 1, causal=True), (24,)),
    "DCGAN generator": (lambda: DCGAN().generator((9, 5, 2), 4), (6,)),
    "DCGAN critic": (lambda: DCGAN().critic(2, 4), (9, 5, 2)),
    "R3GAN generator": (lambda: R3GAN(blocks=1, growth=2, group=4).generator((9, 5, 2), 4), (6,)),
    "R3GAN critic": (lambda: R3GAN(blocks=1, growth=2, group=4).critic(2, 4), (9, 5, 2)),
    "SNGAN generator": (lambda: SNGAN(growth=2).generator((9, 5, 2), 4), (6,)),
    "SNGAN critic": (lambda: SNGAN(growth=2, group=3).critic(2, 4), (9, 5, 2)),
    "BigGAN critic": (lambda: BigGAN(growth=2).critic(2, 8), (9, 5, 2)),
    "patches": (lambda: Patches(layers=1, scales=2).critic(4), (9, 5, 2)),
    "U-Net": (lambda: UNet(growth=2).translator(3, 4), (9, 5, 2), (CODE,)),
    "ResNet": (lambda: ResNet(blocks=1).translator(3, 4), (9, 5, 2), (CODE,)),
    "SPADE": (lambda: SPADE(growth=2, hidden=3).translator(3, 4), (9, 5, 2), (CODE,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_same_on_every_platform(monkeypatch, name):
    (network, *shapes), said = NETWORKS[name], []
    inputs = [normal(i, 3, *shape) for i, shape in enumerate(shapes)]
    for last in (False, True):
        monkeypatch.setattr(batch_last, "preferred", lambda last=last: last)
        params = jax.jit(network().init)(jax.random.key(1), *inputs)["params"]
        params = jax.tree.map(lambda p: p + 0.02, params)  # biases too
        said.append((params, *told(network(), params, inputs)))

    def compare(a, b):  # rounding grows with the largest numbers of an array; in float64 both are equal to 1e-13
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(1, np.abs(b).max()))

    jax.tree.map(compare, *said)


def told(network, params, inputs):
    def loss(params, inputs):
        y = network.apply({"params": params}, *inputs)
        return sum(jnp.sin(part / 4).mean() for part in jax.tree.leaves(y)), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, inputs)
    return y, grads
