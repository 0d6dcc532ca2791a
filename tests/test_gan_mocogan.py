"""MoCoGAN: frames of one content that differ by motion, motion that follows time, and what its critic looks at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.gan import GAN, Hinge, MoCoGAN, StyleGAN2
from mmgen_jax.gan.networks import RANDOM
from mmgen_jax.modalities import Label, Video
from mmgen_jax.types import TrainState

KEY = jax.random.key(0)
SHAPE = (5, 6, 3, 1)


def test_motion_makes_frames_of_one_content_differ_from_its_time_on():
    form = MoCoGAN(motion=3)
    assert form.noise(SHAPE) == ((6, 3),) and form.noise(SHAPE[1:]) == ()
    network = form.generator(SHAPE, 4)
    code, noise = jax.random.normal(KEY, (2, 7)), jax.random.normal(KEY, (2, 6, 3))
    params = jax.jit(network.init)(KEY, code, noise)
    make = jax.jit(network.apply)
    clip = np.asarray(make(params, code, noise))
    assert clip.shape == (2, *SHAPE)
    assert np.abs(np.diff(clip, axis=1)).max((2, 3, 4)).min() > 1e-3  # no frame is like the one before
    for t in (0, 1, 4):  # row t of the noise is that of frame t - 1, row 0 is before all
        other = np.abs(make(params, code, noise.at[:, t].add(1.0)) - clip).max((0, 2, 3, 4))
        first = max(t - 1, 0)
        assert (other[:first] == 0).all() and (other[first:] > 1e-6).all()
    still = make(params, code, 0 * noise)
    np.testing.assert_allclose(still[:, 1:], still[:, :1] + 0 * still[:, 1:], rtol=1e-4, atol=1e-5)


def test_frames_may_have_noise_of_their_own():
    form = MoCoGAN(motion=2, frames=StyleGAN2(growth=1, style=4, layers=1))
    assert form.noise((3, 6, 5, 1)) == ((4, 2), (3, 3, 3), (3, 6, 5), (3, 6, 5))
    network = form.generator((3, 6, 5, 1), 2)
    noise = [jnp.ones((1, *n)) for n in form.noise((3, 6, 5, 1))]
    shapes = jax.eval_shape(lambda: network.init_with_output(KEY, jnp.ones((1, 4)), *noise))
    assert shapes[0].shape == (1, 3, 6, 5, 1)


def test_its_critic_sees_one_frame_by_chance_and_all_of_the_clip():
    critic, x = MoCoGAN().critic(4, 2), jax.random.normal(KEY, (3, *SHAPE))
    params = jax.jit(critic.init)(KEY, x)
    zero = jax.tree.map(jnp.zeros_like, params["params"]["Critic_1"])

    @jax.jit
    def of_one(key):
        rngs = None if key is None else {RANDOM: key}
        return jax.grad(lambda x: critic.apply({"params": params["params"] | {"Critic_1": zero}}, x, rngs=rngs).sum())(
            x
        )

    def looked_at(key):
        return np.abs(of_one(key)).max((2, 3, 4)) > 0  # [B, F]

    np.testing.assert_array_equal(looked_at(None), np.arange(5)[None] == 2 + np.zeros((3, 1)))
    seen = [looked_at(jax.random.key(i)) for i in range(12)]
    assert (np.stack(seen).sum(-1) == 1).all() and np.stack(seen).any((0, 1)).all()
    moves = jax.jit(jax.grad(lambda x: critic.apply(params, x).sum()))(x)
    assert (np.asarray(moves) != 0).all()


def test_a_step_of_a_game_of_clips_and_labels_moves_all_of_its_networks():
    parts = {"video": Video(3, 5, 4, 1, features=2), "label": Label(3, features=4)}
    model = GAN(modalities=parts, noise=4, own=2, width=8, networks=MoCoGAN(motion=2), loss=Hinge(), penalties=())
    tx = optax.sgd(0.1)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(KEY)
    after, metrics = jax.jit(functools.partial(model.step, tx))(state, random_batch(parts, 8), jax.random.key(1))
    assert all(np.isfinite(x) for x in metrics.values())
    for player in ("generator", "critic"):
        old, new = (x.params[player]["networks_video"] for x in (state, after))
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), old, new)
        assert all(jax.tree.leaves(moved)), moved
    made = model.sample(after.variables, KEY, 1, given={"label": 1})
    assert made["video"].shape == (1, 3, 5, 4, 1)


def test_fields_out_of_range():
    with pytest.raises(ValueError, match="MoCoGAN: motion is 0, but must be at least 1"):
        MoCoGAN(motion=0)
