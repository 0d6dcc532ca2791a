"""WaveGAN: the published sizes, what a shuffled phase is, and that critics draw it by a key of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from vae_cases import random_batch

from mmgen_jax.gan import DCGAN, GAN, WGANGP, Wasserstein, WaveGAN
from mmgen_jax.gan.networks import wavegan
from mmgen_jax.modalities import Audio, Label
from mmgen_jax.types import TrainState

SOUNDS = {"audio": Audio(70, rate=8000, features=4), "label": Label(3, features=4)}
SMALL = GAN(modalities=SOUNDS, noise=4, own=2, width=8, networks=DCGAN(), special={"audio": WaveGAN()})
KEY = jax.random.key(0)


def kernels(network, x):
    """Shapes in the order in which they are used, without biases."""
    params = jax.eval_shape(network.init, KEY, x)["params"]
    flat = jax.tree_util.tree_leaves_with_path(params)
    return sorted((x.shape for path, x in flat if path[-1].key == "kernel"), key=lambda shape: -shape[0] * shape[1])


def test_the_published_sizes():
    """16,384 samples, d = 64: from 16 cells of 16 d by kernels of 25 to d; the critic backwards."""
    generator = kernels(WaveGAN().generator((16384, 1), 64), jnp.zeros((1, 100)))
    between = [(25 * 1024, 512), (25 * 512, 256), (25 * 256, 128), (25 * 128, 64)]
    assert generator == [between[0], *between[1:2], (100, 16 * 1024), *between[2:], (25 * 64, 1)]
    critic = kernels(WaveGAN().critic(1, 64), jnp.zeros((1, 16384, 1)))
    assert critic == [(25 * a, b) for a, b in ((512, 1024), (256, 512), (128, 256), (64, 128))] + [
        (16 * 1024, 1),
        (25, 64),
    ]
    assert wavegan.kernel_and_stride(2) == (5, 2) and wavegan.kernel_and_stride(3) == (3, 2)
    assert wavegan.stages((128, 128))[-1] == (4, 4) and wavegan.stages((16384,))[1:3] == [(4096,), (1024,)]


def test_a_shuffled_phase_is_one_of_few_shifts_and_mirrored_at_the_ends():
    x = jnp.tile(jnp.arange(1.0, 10).reshape(1, 9, 1), (200, 1, 2)) * jnp.array([1.0, 10.0]).reshape(1, 1, 2)
    moved = np.asarray(jax.jit(functools.partial(wavegan.shuffled, most=2))(KEY, x))
    assert set(np.unique(moved[..., 0])) <= set(range(1, 10))  # what there was, and nothing else
    np.testing.assert_array_equal(moved[..., 1], 10 * moved[..., 0])  # the same for all channels
    shifts = moved[:, 4, 0] - 5
    assert set(shifts) == {-2, -1, 0, 1, 2}
    for row, shift in zip(moved[..., 0], shifts, strict=True):
        wide = np.pad(np.arange(1, 10), 2, mode="reflect")
        np.testing.assert_array_equal(row, wide[int(shift) + 2 :][:9])
    lone = wavegan.shuffled(KEY, jnp.ones((3, 1, 4, 2)), 2)  # one cell along an axis
    np.testing.assert_array_equal(lone, 1)


def test_critics_draw_by_a_key_and_without_one_do_not():
    params = jax.jit(SMALL.init)(KEY)[0]["critic"]
    there = {name: jnp.ones(4, bool) for name in SOUNDS}
    x = {"audio": jax.random.normal(KEY, (4, 70, 1)), "label": jnp.full((4, 3), 1 / 3)}
    judge = jax.jit(lambda key: SMALL.judge(params, key=key)(x, there))
    plain = [judge(None) for _ in range(2)]
    drawn = [judge(jax.random.key(i)) for i in (1, 1, 2)]
    jax.tree.map(np.testing.assert_array_equal, *plain)
    jax.tree.map(np.testing.assert_array_equal, *drawn[:2])
    np.testing.assert_array_equal(drawn[2]["label"], plain[0]["label"])  # DCGAN draws nothing
    for name in ("audio", "joint"):
        assert (drawn[0][name] != drawn[2][name]).any() and (drawn[0][name] != plain[0][name]).any()


def test_a_step_of_its_own_game_moves_all():
    sound = {"audio": Audio(37, rate=8000, features=4)}
    model = GAN(
        modalities=sound, noise=4, own=2, width=8, networks=WaveGAN(), loss=Wasserstein(), penalties=(WGANGP(),)
    )
    tx = optax.sgd(0.01)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(KEY)
    after, metrics = jax.jit(functools.partial(model.step, tx))(state, random_batch(sound, 2), jax.random.key(1))
    assert all(np.isfinite(x) for x in metrics.values())
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, after.params)
    moved["critic"]["values_audio"]["bias"] = True  # of which differences of values know nothing
    assert all(jax.tree.leaves(moved)), moved
    made = model.sample(after.variables, KEY, 1)
    assert made["audio"].shape == (1, 37, 1)
