"""Random changes that leave the class of an example as it is, one draw for each example, inside the compiled step.

    pictures, clips   x'(p) = a B_b x(c + (I + E)(p - c) + t),   E ~ U(-0.15, 0.15)^(2 x 2),  t ~ U(-2, 2) pixels  (1)
    sounds            x'(s) = x(s + t) + g,                t ~ U(-1/10, 1/10) of the length,  g ~ N(0, 0.2)     (2)

E turns, shears and stretches at once; c is the centre; a clip becomes one of its frames. What models make is fainter
and softer than what they learn from: so a ~ U(0.5, 1), and B blurs twice by (b, 1 - 2b, b), b ~ U(0, 1/4).
Sounds are log-mel spectrograms, on which a gain is a sum. Their ends join, as both are silent.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key

LINEAR, SHIFT, FAINTEST, SOFTEST = 0.15, 2.0, 0.5, 1 / 4  # of equation (1)
DELAY, GAIN = 0.1, 0.2  # of equation (2)


def augment(x: Array, key: Key) -> Array:
    """x [B, *shape] changed at random: shape [frames, mels], [H, W, C] or [F, H, W, C]; others stay as they are."""
    change = {3: _sound, 4: _picture, 5: _clip}.get(x.ndim)
    if change is None or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return jax.vmap(change)(x, jax.random.split(key, len(x)))


def _picture(x: Array, key: Key) -> Array:
    """Equation (1) for x [H, W, C], linearly interpolated; beyond the edge the edge goes on."""
    linear, shift, gain, blur = jax.random.split(key, 4)
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
    return jax.random.uniform(gain, minval=FAINTEST) * x


def _clip(x: Array, key: Key) -> Array:
    """The same for one frame, drawn at random, of x [F, H, W, C]: [1, H, W, C]."""
    which, how = jax.random.split(key)
    return _picture(x[jax.random.randint(which, (), 0, len(x))], how)[None]


def _sound(x: Array, key: Key) -> Array:
    """Equation (2) for x [frames, mels]."""
    shift, gain = jax.random.split(key)
    most = round(DELAY * len(x))
    return jnp.roll(x, jax.random.randint(shift, (), -most, most + 1), axis=0) + GAIN * jax.random.normal(gain)
