"""Noise of trained generators: truncation, interpolation and directions in closed form, and what is made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.gan import DCGAN, GAN, between, directions, from_noise, truncated
from mmgen_jax.modalities import Label, Vector

KEY = jax.random.key(0)


def test_truncated_noise_is_a_truncated_normal_in_the_same_order():
    z = jax.random.normal(KEY, (20_000,))
    cut = truncated(z, 1.0)
    assert np.abs(cut).max() <= 1 and (np.diff(np.asarray(cut)[np.argsort(z)]) >= 0).all()
    # The variance of a normal number between -1 and 1 is 1 - 2 phi(1) / (2 Phi(1) - 1).
    np.testing.assert_allclose(np.var(cut), 1 - 2 * 0.241971 / 0.682689, rtol=0.03)
    np.testing.assert_allclose(truncated(z, 8.0), z, atol=1e-2)
    with pytest.raises(ValueError, match="threshold is 0, but must be more than 0"):
        truncated(z, 0)


def test_interpolation_goes_along_a_circle():
    a, b = jnp.array([2.0, 0.0]), jnp.array([0.0, 2.0])
    angles = np.linspace(0, np.pi / 2, 5)
    expected = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    np.testing.assert_allclose(between(a, b, jnp.linspace(0, 1, 5)), expected, atol=1e-6)
    np.testing.assert_allclose(between(a, b, 1 / 3), 2 * np.array([np.cos(np.pi / 6), 0.5]), atol=1e-6)
    # Where there is no angle, or no one plane, along a line.
    np.testing.assert_allclose(between(a, 3 * a, 0.5), 2 * a, atol=1e-5)
    np.testing.assert_allclose(between(a, -a, 0.25), a / 2, atol=1e-5)
    many = between(jnp.stack([a, a]), jnp.stack([b, a]), jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(many[2], [b, a], atol=1e-6)
    assert many.shape == (3, 2, 2)


def test_directions_are_the_singular_vectors_of_the_first_layer():
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    back, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    kernel = turn @ np.diag([5.0, 3.0, 1.0, 0.5]) @ back[:4]
    found, strength = directions(jnp.asarray(kernel), 2)
    np.testing.assert_allclose(strength, [5, 3], rtol=1e-5)
    for direction, truth in zip(np.asarray(found), turn.T[:2], strict=True):
        np.testing.assert_allclose(direction, truth * np.sign(truth[np.abs(truth).argmax()]), atol=1e-5)
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"count is {count}, but must be in 1..4"):
            directions(jnp.asarray(kernel), count)


def test_what_is_made_of_drawn_noise_is_what_sampling_makes():
    parts = {"label": Label(4, features=4), "vector": Vector(3, features=4)}
    model = GAN(modalities=parts, noise=4, own=2, width=8, networks=DCGAN(), spectral="both")
    params, stats = jax.jit(model.init)(KEY)
    variables = {"params": params, **stats}
    noise = model.drawn(KEY, 5)
    assert {name: z.shape for name, z in noise.items()} == {"": (5, 4), "label": (5, 2), "vector": (5, 2)}
    made = from_noise(model, variables, noise)
    for name, x in model.sample(variables, KEY, 5).items():
        np.testing.assert_allclose(made[name], x, rtol=1e-5, atol=1e-6)
    labels = jnp.arange(5) % 4
    told = from_noise(model, variables, noise, given={"label": labels})
    np.testing.assert_array_equal(told["label"], labels)
    assert np.abs(np.asarray(told["vector"] - made["vector"])).max() > 1e-4
    assert from_noise(model, variables, noise, targets=("label",)).keys() == {"label"}
