"""Noise of trained generators: truncation, interpolation and directions in closed form, and what is made of them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.gan import DCGAN, GAN, between, directions, from_noise, projected, truncated
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.types import Batch

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


@functools.cache
def linear_game():
    """Two vectors and a label, linear in the noise: h = W z + b, y_m = K_m [h; z_m] + b_m."""
    parts = {"a": Vector(3), "b": Vector(4), "label": Label(3)}
    decoders = {"a": nn.Dense(3), "b": nn.Dense(4), "label": nn.Dense(3)}
    model = GAN(modalities=parts, noise=1, own=1, width=4, networks=DCGAN(), decoders=decoders)
    params, _ = jax.jit(model.init)(KEY)
    params["generator"]["out"] = jax.tree.map(jnp.zeros_like, params["generator"]["out"])  # what is not linear
    return model, {"params": params}


def test_projection_by_a_linear_generator_is_least_squares():
    """Of any of the vectors: the noise of what is not given stays as it was drawn."""
    model, variables = linear_game()
    start = model.drawn(KEY, 4)
    x = {"a": jax.random.normal(KEY, (4, 3)), "b": jax.random.normal(jax.random.key(1), (4, 4))}
    values = x | {"label": jnp.zeros(4, jnp.int32)}
    present = {"a": jnp.arange(4) != 2, "b": jnp.arange(4) >= 2, "label": jnp.zeros(4, bool)}
    noise, left = projected(model, variables, KEY, 4, given=Batch(values, present), steps=1000)

    def made(z):
        flat = {"": z[:1], "a": z[1:2], "b": z[2:3], "label": jnp.zeros(1)}
        out = from_noise(model, variables, {name: n[None] for name, n in flat.items()})
        return {name: out[name][0] for name in x}

    offset, slope = made(jnp.zeros(3)), jax.jacobian(made)(jnp.zeros(3))
    for i, names in enumerate(["a", "a", "b", "ab"]):
        columns = [0, *(1 + "ab".index(name) for name in names)]
        scaled = [(slope[n][:, np.array(columns)], x[n][i] - offset[n], np.sqrt(len(x[n][i]))) for n in names]
        rows, target = (np.concatenate([part[j] / part[2] for part in scaled]) for j in (0, 1))
        wanted, rest, *_ = np.linalg.lstsq(rows, target, rcond=None)
        found = np.concatenate([noise[""][i], *(noise[name][i] for name in names)])
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(left[i], rest[0], rtol=1e-4)
        for name in {"a", "b", "label"} - set(names):
            np.testing.assert_array_equal(noise[name][i], start[name][i])


def test_projection_of_a_symbol_and_of_one_example_from_several_beginnings():
    model, variables = linear_game()
    seen = from_noise(model, variables, model.drawn(jax.random.key(5), 8))["label"]
    noise, left = projected(model, variables, KEY, 3, given={"label": seen[0]}, steps=1000)
    np.testing.assert_array_equal(from_noise(model, variables, noise)["label"], np.full(3, seen[0]))
    assert (left < np.log(3)).all() and len({float(z) for z in noise[""][:, 0]}) == 3
    for fields, message in (
        (dict(given={}), "given is {}, but must have at least one of"),
        (dict(given={"label": seen[0]}, steps=0), "steps is 0, but must be more than 0"),
        (dict(given={"sound": seen[0]}), "'sound' is no modality"),
    ):
        with pytest.raises(ValueError, match=message):
            projected(model, variables, KEY, 3, **fields)
