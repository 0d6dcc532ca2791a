"""StyleGAN2: the published sizes, modulation and demodulation, resampling, and noise at each place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.gan import GAN, NonSaturating, PathLength, StyleGAN2
from mmgen_jax.gan.networks import r3gan, stylegan2
from mmgen_jax.modalities import Image
from mmgen_jax.types import TrainState

KEY = jax.random.key(0)
SMALL = StyleGAN2(growth=2, style=6, layers=2)


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def start(module, *inputs):
    return jax.jit(module.init)(KEY, *inputs)


def test_the_published_numbers_of_parameters():
    """For 256 x 256 the generator has 24.8 million and the critic 24.0 million; with published code, exactly these."""
    form, shape = StyleGAN2(), (256, 256, 3)
    sizes = form.noise(shape)
    assert sizes[:4] == ((4, 4), (8, 8), (8, 8), (16, 16)) and len(sizes) == 13
    noise = [jnp.zeros((1, *n)) for n in sizes]
    network = form.generator(shape, 64)
    assert count(jax.eval_shape(network.init, KEY, jnp.zeros((1, 512)), *noise)) == 24_767_458
    assert count(jax.eval_shape(form.critic(1, 64).init, KEY, jnp.zeros((4, *shape)))) == 24_001_089


def test_demodulated_kernels_have_norm_one():
    kernel, s = jax.random.normal(KEY, (3, 3, 5, 4)), jax.random.normal(KEY, (2, 5))
    modulated = np.asarray(kernel)[None] * np.asarray(s).reshape(2, 1, 1, 5, 1)
    whole = modulated * np.asarray(stylegan2.demodulation(kernel, s)).reshape(2, 1, 1, 1, 4)
    np.testing.assert_allclose((whole**2).sum((1, 2, 3)), 1, rtol=1e-4)


def test_a_layer_is_a_convolution_with_kernels_of_the_example():
    """Scaling inputs and outputs equals (3) for each example; a style as large again changes nothing."""
    layer = stylegan2.StyledConv((5, 6), 4)
    x, style, n = (jax.random.normal(KEY, shape) for shape in ((2, 5, 6, 3), (2, 7), (2, 5, 6)))
    params = start(layer, x, style, n)
    params["params"]["strength"], params["params"]["bias"] = jnp.float32(0.3), jnp.arange(4.0)
    p = jax.tree.map(np.asarray, params["params"])
    s = np.asarray(style) @ p["Linear_0"]["kernel"] / np.sqrt(7) + 1
    for i in range(2):
        kernel = p["kernel"].reshape(3, 3, 3, 4) * s[i].reshape(1, 1, 3, 1)
        kernel = kernel / np.sqrt((kernel**2).sum((0, 1, 2)))
        y = jax.lax.conv_general_dilated(
            x[i : i + 1], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        y = y[0] + 0.3 * n[i][..., None] + jnp.arange(4.0).reshape(1, 1, 4)
        wanted = np.sqrt(2) * np.where(y > 0, y, 0.2 * y)
        np.testing.assert_allclose(layer.apply(params, x, style, n)[i], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(12,), (11, 8)], ids=str)
def test_sizes_are_doubled_as_by_the_filter_and_then_a_convolution(size):
    """Away from the ends: there a filter sees what the convolution before it made of nothing."""
    half = tuple(-(-n // 2) for n in size)
    layer = stylegan2.StyledConv(size, 4)
    x, style, n = (jax.random.normal(KEY, shape) for shape in ((2, *half, 3), (2, 7), (2, *size)))
    params = start(layer, x, style, n)
    params["params"]["Linear_0"] = {"kernel": jnp.zeros((7, 3)), "bias": jnp.ones(3)}
    y = jax.jit(layer.apply)(params, x, style, n)
    kernel = np.asarray(params["params"]["kernel"]).reshape(*(3,) * len(size), 3, 4)
    kernel = np.flip(kernel, range(len(size))) / np.sqrt((kernel**2).sum(tuple(range(len(size) + 1))))
    letters = "HW"[: len(size)]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    z = jax.lax.conv_general_dilated(r3gan.doubled(x, size), kernel, (1,) * len(size), "SAME", dimension_numbers=layout)
    wanted, inside = np.sqrt(2) * np.where(z > 0, z, 0.2 * z), (slice(None), *(slice(2, n - 2) for n in size))
    assert y.shape == (2, *size, 4)
    np.testing.assert_allclose(y[inside], wanted[inside], rtol=1e-3, atol=1e-4)


def test_sizes_are_halved_by_the_filter_and_a_convolution_with_steps():
    conv, x = stylegan2.Conv(4, halves=True), jax.random.normal(KEY, (2, 9, 1, 3))
    params = start(conv, x)
    assert params["params"]["kernel"].shape == (3 * 3, 4)  # of one tap along the axis that stays
    y = np.asarray(conv.apply(params, x))
    kernel = np.asarray(params["params"]["kernel"]).reshape(3, 3, 4) / 3
    wide = np.pad(np.asarray(x)[:, :, 0], ((0, 0), (2, 3), (0, 0)))
    smooth = sum(w * wide[:, t : t + 11] for t, w in enumerate((1 / 8, 3 / 8, 3 / 8, 1 / 8)))
    for i in range(5):
        np.testing.assert_allclose(
            y[:, i, 0], np.einsum("bki,kio->bo", smooth[:, 2 * i : 2 * i + 3], kernel), atol=1e-4
        )
    assert y.shape == (2, 5, 1, 4)


def test_noise_is_seen_as_far_as_it_has_learned_strength():
    shape = (7, 5, 2)
    network = SMALL.generator(shape, 4)
    code = jax.random.normal(KEY, (2, 3))
    noise = [jax.random.normal(jax.random.fold_in(KEY, i), (2, *n)) for i, n in enumerate(SMALL.noise(shape))]
    params = start(network, code, *noise)
    make = jax.jit(network.apply)
    before, quiet = make(params, code, *noise), make(params, code, *(-n for n in noise))
    np.testing.assert_array_equal(before, quiet)  # at first
    for name, layer in params["params"].items():
        if name.startswith("convs"):
            layer["strength"] = jnp.float32(0.5)
    before = make(params, code, *noise)
    for i in range(len(noise)):
        other = make(params, code, *(n if i != j else -n for j, n in enumerate(noise)))
        assert np.abs(np.asarray(other - before)).max() > 1e-3, i
    # A style is told to each layer: the last one's changes colours alone, by its toRGB.
    style = network.apply(params, code, method="style")
    assert style.shape == (2, len(noise) + 1, 6)
    np.testing.assert_allclose(network.apply(params, style, *noise, method="made"), before, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.apply(params, 3 * code, method="style"), style, rtol=1e-4, atol=1e-5)


def test_a_step_of_its_own_game_moves_all():
    image = {"image": Image(5, 4, 1, features=4)}
    model = GAN(
        modalities=image,
        noise=4,
        own=2,
        width=8,
        networks=SMALL,
        loss=NonSaturating(),
        penalties=(),
        path_length=PathLength(),
    )
    tx = optax.sgd(0.1)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(KEY)
    after, metrics = jax.jit(functools.partial(model.step, tx))(state, random_batch(image, 4), jax.random.key(1))
    assert all(np.isfinite(x) for x in metrics.values()) and float(after.stats["path"]["image"]) > 0
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, after.params)
    assert all(jax.tree.leaves(moved)), moved
    assert model.sample(after.variables, KEY, 1)["image"].shape == (1, 5, 4, 1)
