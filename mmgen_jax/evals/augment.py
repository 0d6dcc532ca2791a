"""Random changes that leave the class of an example as it is, one draw for each example, inside the compiled step.

    pictures, clips   x'(p) = a B_b x(c + (I + E)(p - c) + t) + n e_p,  E_ij ~ U(-0.15, 0.15),  t ~ U(-2, 2) pixels  (1)
    before that       x_i <- (1 - m) x_i + m mean_{j: y_j = y_i} x_j,                      m = max(0, U(-0.6, 0.6))  (2)
    sounds            x'(s) = x(s + t) + g,                t ~ U(-1/10, 1/10) of the length,  g ~ N(0, 0.2)          (3)

E turns, shears and stretches at once; c is the centre; a clip becomes one of its frames. What models make is fainter
and softer than what they learn from: so a ~ U(0.5, 1), and B blurs twice by (b, 1 - 2b, b), b ~ U(0, 1/4). Where
nothing is, it is not quite black, which no eye sees: so noise e ~ N(0, 1), n ~ U(0, 0.05). And it is more average, as
who is told "a nine" and no more answers with the mean of many nines: so (2) mixes half the examples with those of
their class y in the batch, moved until their centres of mass agree.
Sounds are log-mel spectrograms, on which a gain is a sum. Their ends join, as both are silent.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key

LINEAR, SHIFT, FAINTEST, SOFTEST, NOISE = 0.15, 2.0, 0.5, 1 / 4, 0.05  # of equation (1)
MIXED = 0.6  # of equation (2)
DELAY, GAIN = 0.1, 0.2  # of equation (3)


def augment(x: Array, y: Array, key: Key) -> Array:
    """x [B, *shape] of classes y [B], changed at random: shape [frames, mels], [H, W, C] or [F, H, W, C].

    Of a clip one frame is left, [B, 1, H, W, C]. Arrays of other shapes, and whole numbers, stay as they are.
    """
    if x.ndim not in (3, 4, 5) or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    which, mixing, changing = jax.random.split(key, 3)
    keys = jax.random.split(changing, len(x))
    if x.ndim == 3:
        return jax.vmap(_sound)(x, keys)
    if x.ndim == 5:
        frames = jax.random.randint(which, len(x), 0, x.shape[1])
        return augment(x[jnp.arange(len(x)), frames], y, changing)[:, None]
    return jax.vmap(_picture)(mixed(x, y, mixing), keys)


def mixed(x: Array, y: Array, key: Key) -> Array:
    """Equation (2) for pictures x [B, H, W, C] of classes y [B]. They are moved by whole pixels, and go round."""
    centre = jnp.array(x.shape[1:3]) / 2
    shifts = jax.vmap(lambda one: jnp.round(centre - centre_of_mass(one)).astype(jnp.int32))(x)
    move = jax.vmap(lambda one, shift: jnp.roll(one, shift, (0, 1)))
    alike = (y[:, None] == y[None]).astype(x.dtype)
    means = jnp.einsum("ij,jhwc->ihwc", alike / alike.sum(1, keepdims=True), move(x, shifts))
    m = jnp.maximum(0, jax.random.uniform(key, (len(x), 1, 1, 1), minval=-MIXED, maxval=MIXED))
    return (1 - m) * x + m * move(means, -shifts)


def centre_of_mass(x: Array) -> Array:
    """Row and column, [2], of a picture [H, W, C]; its corner if it is empty."""
    mass = jnp.abs(x).sum(-1)
    return jnp.einsum("ihw,hw->i", jnp.indices(mass.shape, x.dtype), mass) / jnp.maximum(mass.sum(), 1e-6)


def _picture(x: Array, key: Key) -> Array:
    """Equation (1) for x [H, W, C], linearly interpolated; beyond the edge the edge goes on."""
    linear, shift, gain, blur, level, noise = jax.random.split(key, 6)
    matrix = jnp.eye(2) + jax.random.uniform(linear, (2, 2), minval=-LINEAR, maxval=LINEAR)
    # Coordinates stand first here, [2, H, W], as map_coordinates has them.
    centre = (jnp.array(x.shape[:2]) - 1).reshape(2, 1, 1) / 2
    way = jax.random.uniform(shift, (2, 1, 1), minval=-SHIFT, maxval=SHIFT)
    where = jnp.einsum("ij,jhw->ihw", matrix, jnp.indices(x.shape[:2]) - centre) + centre + way
    look = functools.partial(jax.scipy.ndimage.map_coordinates, coordinates=list(where), order=1, mode="nearest")
    x = jax.vmap(look, in_axes=-1, out_axes=-1)(x)
    b = jax.random.uniform(blur, maxval=SOFTEST)
    for axis in (0, 1, 0, 1):
        x = (1 - 2 * b) * x + b * (jnp.roll(x, 1, axis) + jnp.roll(x, -1, axis))
    n = jax.random.uniform(level, maxval=NOISE)
    return jax.random.uniform(gain, minval=FAINTEST) * x + n * jax.random.normal(noise, x.shape, x.dtype)


def _sound(x: Array, key: Key) -> Array:
    """Equation (3) for x [frames, mels]."""
    shift, gain = jax.random.split(key)
    most = round(DELAY * len(x))
    return jnp.roll(x, jax.random.randint(shift, (), -most, most + 1), axis=0) + GAIN * jax.random.normal(gain)
