"""Architectures: any shape, zero-initialised blocks, the published filter, and what a critic's value depends on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.gan import DCGAN, GAN, R3GAN, SNGAN, BigGAN, Hinge, StyleGAN2, WaveGAN, spectral
from mmgen_jax.gan.networks import Noisy, r3gan, sngan
from mmgen_jax.gan.relaxed import relaxed, restored, shown
from mmgen_jax.modalities import Image, Label, Text, Vector
from mmgen_jax.types import TrainState

ARCHITECTURES = {
    "r3gan": R3GAN(blocks=1, growth=2, group=4),
    "dcgan": DCGAN(growth=2),
    "sngan": SNGAN(),
    "biggan": BigGAN(growth=2, chunk=2),
    "stylegan2": StyleGAN2(growth=2, style=4, layers=2, group=0),
    "wavegan": WaveGAN(growth=2),
}
SHAPES = [(5,), (7, 3), (6, 9, 2), (3, 5, 4, 1)]  # without space, and one to three axes of it


def random_params(module, *inputs):
    """Parameters none of which is zero, drawn without a program that has to be compiled."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree.map(
        lambda w: rng.normal(size=w.shape).astype(np.float32) / np.sqrt(w.shape[0] if w.ndim > 1 else 4), shapes
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_shape(name, shape):
    form, key = ARCHITECTURES[name], jax.random.key(0)
    generator, critic = form.generator(shape, 4, jnp.float32), form.critic(6, 4, jnp.float32)
    code, real = jax.random.normal(key, (2, 3)), jax.random.normal(key, (2, *shape))
    noise = [jax.random.normal(key, (2, *n)) for n in (form.noise(shape) if isinstance(form, Noisy) else ())]
    makes, judges = random_params(generator, code, *noise), random_params(critic, real)

    @jax.jit
    def play(makes, judges, real):
        def spread(makes, judges, real):
            made = generator.apply(makes, code, *noise)
            values = critic.apply(judges, jnp.concatenate([real, made]))
            return values.var(), (made, values)

        grads, (made, values) = jax.grad(spread, (0, 1, 2), has_aux=True)(makes, judges, real)
        one = generator.apply(makes, code[1:], *(n[1:] for n in noise))
        return made, values, grads, critic.apply(judges, one)

    made, values, grads, one = play(makes, judges, real)
    assert made.shape == (2, *shape) and values.shape == (4, 6)
    np.testing.assert_allclose(one, values[3:], rtol=1e-4, atol=1e-4)  # a batch of one
    assert np.abs(np.asarray(made[0] - made[1])).max() > 1e-3
    assert (np.asarray(grads[2]) != 0).all()  # every value is looked at
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.any(grad != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_precision_is_kept_and_parameters_are_not_halved(name):
    form, shape, code = ARCHITECTURES[name], (6, 9, 2), jnp.ones((1, 3))
    noise = [jnp.ones((1, *n)) for n in (form.noise(shape) if isinstance(form, Noisy) else ())]
    for network, *inputs in (
        (form.generator(shape, 4, jnp.bfloat16), code, *noise),
        (form.critic(6, 4, jnp.bfloat16), jnp.ones((1, *shape))),
    ):
        y, params = jax.eval_shape(network.init_with_output, jax.random.key(0), *inputs)
        assert y.dtype == jnp.bfloat16 and {w.dtype for w in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_a_block_begins_as_nothing():
    block, x = r3gan.Block(R3GAN(group=4), 8), jax.random.normal(jax.random.key(0), (2, 5, 6, 8))
    y, params = jax.jit(block.init_with_output)(jax.random.key(1), x)
    np.testing.assert_array_equal(y, x)
    kernel = np.asarray(params["params"]["GroupedConv_0"]["kernel"])
    assert kernel.shape == (4, 36, 4)  # 16 channels inside, in groups of 4
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 1.04) * 8**-0.25 / 6, rtol=0.1)


@pytest.mark.parametrize("space", [(8,), (7, 4), (5, 6, 3)], ids=str)
def test_sizes_are_changed_by_the_filter_and_its_transpose(space):
    """Halving is the filter [1, 3, 3, 1] / 8 an axis; doubling is its transpose times 2 an axis, exactly."""
    half = tuple(-(-n // 2) for n in space)
    eye = jnp.eye(int(np.prod(space))).reshape(-1, *space, 1)
    down = np.asarray(r3gan.halved(eye)).reshape(len(eye), -1)
    back = jnp.eye(down.shape[1]).reshape(-1, *half, 1)
    up = np.asarray(r3gan.doubled(back, space)).reshape(down.shape[1], -1)
    np.testing.assert_allclose(up, down.T * 2 ** len(space), atol=1e-6)
    if len(space) == 1:
        np.testing.assert_allclose(down[:, 1], np.array([0, 1, 3, 3, 1, 0, 0, 0]) / 8)


def test_grouped_convolution_is_one_within_each_group():
    conv, x = r3gan.GroupedConv(2, 1.0), jax.random.normal(jax.random.key(0), (1, 4, 5, 6))
    y, params = jax.jit(conv.init_with_output)(jax.random.key(1), x)
    kernel = params["params"]["kernel"].reshape(3, 3, 3, 2, 2)
    for g in range(3):
        part = jax.lax.conv_general_dilated(
            x[..., 2 * g : 2 * g + 2], kernel[g], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        np.testing.assert_allclose(y[..., 2 * g : 2 * g + 2], part, rtol=1e-4, atol=1e-5)


def test_a_modulated_norm_is_a_norm_whose_scale_and_shift_follow_the_code():
    norm, x = sngan.ModulatedNorm(), jax.random.normal(jax.random.key(0), (2, 5, 6))
    code = jax.random.normal(jax.random.key(1), (2, 3))
    params = jax.tree.map(jnp.zeros_like, jax.jit(norm.init)(jax.random.key(2), x, code))
    y = norm.apply(params, x, code)
    np.testing.assert_allclose((np.asarray(y) ** 2).mean(-1), 1, rtol=1e-4)
    params["params"]["scale"]["kernel"] = params["params"]["scale"]["kernel"].at[0].set(1.0)
    params["params"]["shift"]["bias"] = jnp.full(6, 7.0)
    changed = norm.apply(params, x, code)
    np.testing.assert_allclose(changed, y * (1 + code[:, None, :1]) + 7, rtol=1e-4, atol=1e-5)


def test_sizes_of_a_residual_network_are_means_and_copies():
    x = jnp.arange(10.0).reshape(1, 5, 2, 1)
    small = sngan.halved(x)
    np.testing.assert_allclose(small.ravel(), [1.5, 5.5, 8.5])
    np.testing.assert_allclose(sngan.doubled(small, (5, 2))[0, ..., 0], [[1.5] * 2] * 2 + [[5.5] * 2] * 2 + [[8.5] * 2])
    lone = jnp.ones((2, 1, 6, 3))
    assert sngan.halved(lone).shape == (2, 1, 3, 3) and sngan.doubled(sngan.halved(lone), (1, 6)).shape == lone.shape


def test_the_deviation_of_a_group_is_one_more_channel():
    x = jnp.concatenate([jnp.zeros((2, 3, 4)), jnp.ones((2, 3, 4))])  # rows i and i + 2 are a group of two
    seen = sngan.with_deviation(x, 2)
    np.testing.assert_array_equal(seen[..., :4], x)
    np.testing.assert_allclose(seen[..., 4], 0.5, rtol=1e-4)
    np.testing.assert_allclose(sngan.with_deviation(x[:2], 2)[..., 4], 0, atol=1e-3)
    assert sngan.with_deviation(x[:3], 2).shape == (3, 3, 5)  # three rows have no groups of two


def test_a_critic_with_deviations_tells_a_batch_of_one_example_from_one_of_many():
    critic, key = SNGAN(group=4).critic(2, 4, jnp.float32), jax.random.key(0)
    x = jax.random.normal(key, (4, 6, 3))
    values, params = jax.jit(critic.init_with_output)(key, x)
    same = jax.jit(critic.apply)(params, jnp.repeat(x[:1], 4, axis=0))
    assert np.abs(np.asarray(same[0] - values[0])).max() > 1e-4


def test_a_step_of_its_own_game_moves_every_kernel():
    """The hinge with spectral norms of both players and groups of examples: no kernel begins at zero, or is lost."""
    model = GAN(
        modalities={"vector": Vector(3, features=4)},
        noise=4,
        width=8,
        loss=Hinge(),
        penalties=(),
        spectral="both",
        networks=SNGAN(group=2),
    )
    tx = optax.sgd(0.1)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(jax.random.key(0))
    batch = random_batch(model.modalities, 8)
    after, metrics = jax.jit(functools.partial(model.step, tx))(state, batch, jax.random.key(1))
    assert all(np.isfinite(x) for x in metrics.values())
    for path, moved in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: bool((a != b).any()), state.params, after.params)
    ):
        assert moved or path[-1].key == "bias", jax.tree_util.keystr(path)


def test_the_published_size():
    """R3GAN for CIFAR-10: 768 channels at each of four sizes, 96 groups, two blocks; blocks hold 21.3 M numbers."""
    network = R3GAN(growth=1).generator((32, 32, 3), 768, jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64)))["params"]
    blocks = [block for name, block in params.items() if name.startswith("Block")]
    assert len(blocks) == 8 and blocks[0]["GroupedConv_0"]["kernel"].shape == (96, 9 * 16, 16)
    sizes = [sum(x.size for x in jax.tree.leaves(block)) for block in blocks]
    assert set(sizes) == {2 * 768 * 1536 + 1536 + 9 * 16 * 1536 + 1536}


def test_spectral_norms_come_to_one_whatever_the_network():
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 5)), "bias": jnp.ones(5)}}
    us = spectral.vectors(jax.random.key(1), params)
    for _ in range(50):
        us = spectral.iterated(params, us)
    normal = spectral.normalised(params, us)["a"]
    largest = np.linalg.svd(np.asarray(normal["kernel"]).reshape(36, 5))[1][0]
    np.testing.assert_allclose(largest, 1, rtol=1e-4)
    np.testing.assert_array_equal(normal["bias"], 1)


def test_a_kernel_that_begins_at_zero_is_left_until_it_has_a_norm():
    zeros, w = {"w": jnp.zeros((4, 5))}, {"w": jax.random.normal(jax.random.key(0), (4, 5))}
    us = spectral.vectors(jax.random.key(1), zeros)
    kept = spectral.iterated(zeros, us)
    np.testing.assert_array_equal(kept["w"], us["w"])
    normal, pull = jax.vjp(lambda params: spectral.normalised(params, us), zeros)
    np.testing.assert_array_equal(normal["w"], 0)
    np.testing.assert_array_equal(pull(w)[0]["w"], w["w"])
    for _ in range(100):
        kept = spectral.iterated(w, kept)
    np.testing.assert_allclose(spectral.sigma(w["w"], kept["w"]), np.linalg.svd(w["w"])[1][0], rtol=1e-4)


def test_made_symbols_are_no_surer_than_real_ones_and_keep_their_slope():
    label = Label(5)
    out = 30 * jnp.eye(5)
    np.testing.assert_allclose(shown(label, out, 0.1), relaxed(label, jnp.arange(5), 0.1), rtol=1e-5)
    np.testing.assert_allclose(shown(label, out, 0), jax.nn.softmax(out), rtol=1e-6)
    unsure = 0.5 * jax.random.normal(jax.random.key(0), (4, 5))
    np.testing.assert_allclose(shown(label, unsure, 0.1), jax.nn.softmax(unsure), rtol=1e-6)
    slope = jax.grad(lambda out, s: jnp.log(shown(label, out, s)[0, 1]))
    assert float(jnp.abs(slope(out[:1], 0.1)).max()) > 0.1 * 4 / 30
    assert bool((jnp.abs(jax.jacobian(lambda out: shown(label, out, 0))(out[:1])) < 1e-12).all())


def test_examples_as_players_see_them():
    text, image = Text(4), Image(2, 2, 1)
    ids = jnp.array([[3, 2, 1, 0]])
    seen = relaxed(text, ids, 0.2)
    assert seen.shape == (1, 4, text.ids)
    np.testing.assert_allclose(seen[0, 0, 3], 0.8 + 0.2 / text.ids, rtol=1e-6)
    np.testing.assert_array_equal(restored(text, seen), ids)
    np.testing.assert_allclose(shown(text, jnp.log(seen), 0.2), seen, rtol=1e-5)
    grey = jnp.array([0.0, 0.25, 0.5, 1.0]).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(relaxed(image, grey, 0.2).ravel(), [-1, -0.5, 0, 1])
    np.testing.assert_allclose(restored(image, relaxed(image, grey, 0.2)), grey)


def test_the_order_of_modalities_changes_nothing():
    parts = {"label": Label(4, features=4), "vector": Vector(3, features=4)}
    small = dict(noise=4, own=2, width=8, networks=DCGAN())
    one, other = (GAN(modalities=dict(items), **small) for items in (parts.items(), reversed(parts.items())))
    (a, _), (b, _) = (jax.jit(m.init)(jax.random.key(0)) for m in (one, other))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    made = [m.sample({"params": a}, jax.random.key(1), 3) for m in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *made)


@pytest.mark.parametrize(
    "make",
    [
        lambda: R3GAN(blocks=0),
        lambda: R3GAN(group=0),
        lambda: DCGAN(growth=0),
        lambda: SNGAN(growth=0),
        lambda: WaveGAN(growth=0),
    ],
)
def test_fields_out_of_range(make):
    with pytest.raises(ValueError, match="at least 1"):
        make()
    with pytest.raises(ValueError, match="SNGAN: group is -1, but must be at least 0"):
        SNGAN(group=-1)
    with pytest.raises(ValueError, match="WaveGAN: shuffle is -1, but must be at least 0"):
        WaveGAN(shuffle=-1)
