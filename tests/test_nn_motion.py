"""A picture that moves: whole shifts are shifts, half ones interpolate, and the motion's numbers leave it as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.nn.motion import MovingPicture, moved

KEY = jax.random.key(0)


def test_whole_shifts_move_and_let_zero_in():
    picture = jax.random.normal(KEY, (2, 4, 5, 3))
    shifts = jnp.array([[[0, 0], [1, -2]], [[-3, 1], [9, 0]]], jnp.float32)
    frames = np.asarray(moved(picture, shifts))
    np.testing.assert_array_equal(frames[0, 0], picture[0])
    np.testing.assert_array_equal(frames[0, 1, 1:, :3], picture[0, :3, 2:])
    assert not frames[0, 1, 0].any() and not frames[0, 1, :, 3:].any()
    np.testing.assert_array_equal(frames[1, 0, :1, 1:], picture[1, 3:, :4])
    assert not frames[1, 1].any()  # gone


def test_between_whole_shifts_it_is_interpolated_and_has_a_gradient():
    picture = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1].set(1.0)
    frame = np.asarray(moved(picture, jnp.array([[[0.25, -0.5]]])))[0, 0, :, :, 0]
    np.testing.assert_allclose(frame, [[0, 0, 0], [0.375, 0.375, 0], [0.125, 0.125, 0]], atol=1e-6)
    target = moved(picture, jnp.array([[[0.5, 0.0]]]))
    gradient = jax.grad(lambda s: jnp.sum((moved(picture, s) - target) ** 2))(jnp.array([[[0.2, 0.0]]]))
    assert gradient[0, 0, 0] < 0  # further down


@pytest.mark.parametrize("shape", [(3, 8, 6, 1), (1, 5, 7, 2)])
def test_the_motion_moves_the_picture_and_cannot_change_it(shape):
    network = MovingPicture(shape, motion=2, features=4, fold=2, reach=0.5)
    code = jax.random.normal(KEY, (1, 6))
    params = jax.jit(network.init)(KEY, code)
    clip = jax.jit(network.apply)(params, code)
    assert clip.shape == (1, *shape)
    still = jax.tree.map(jnp.zeros_like, params["params"]["MLP_0"])
    params = {"params": {**params["params"], "MLP_0": still}}
    one, other = (network.apply(params, code.at[:, -2:].set(x)) for x in (0.0, 5.0))
    np.testing.assert_array_equal(one, other)  # nothing moves: the motion's numbers have nothing left to say
    np.testing.assert_allclose(one, jnp.broadcast_to(one[:, :1], one.shape), atol=1e-6)
    assert not np.allclose(one, network.apply(params, code.at[:, :-2].set(0.5)))
