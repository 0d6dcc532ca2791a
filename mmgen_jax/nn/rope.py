"""Where a token stands and what time it is, as sines and cosines.

    f_i = theta^(-i / n) for i < n            n frequencies, from 1 down to about 1 / theta            (1)
    t -> [cos(f t), sin(f t)]                                                                          (2)
    (row, column) -> [sin(f column), cos(f column), sin(f row), cos(f row)]                            (3)
    (x_a, x_b) -> (x_a cos(f p) - x_b sin(f p), x_b cos(f p) + x_a sin(f p))   for pairs of channels   (4)

(2) tells the time and (3) the place in DiT (Peebles & Xie 2022, arXiv:2212.09748). (4), of q and of k, is rotary
embedding (Su et al. 2021, arXiv:2104.09864): q . k then depends on positions p only through their difference. Several
axes share the pairs out as in Wan (arXiv:2503.20314). Positions are facts of shapes, known before tracing: their tables
are made by numpy, in float64.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mmgen_jax.types import Array


def frequencies(count: int, theta: float = 10_000.0, shift: int = 0) -> np.ndarray:
    """Equation (1), [count] float64. shift is taken off n in the exponent: with 1 the last is 1 / theta exactly."""
    return theta ** (-np.arange(count) / (count - shift))


def time_features(t: Array, width: int, *, shift: int = 0, sin_first: bool = False) -> Array:
    """Equation (2), t [...] -> [..., width] in float32 or better, for an even width."""
    t = jnp.asarray(t)
    t = t.astype(jnp.promote_types(t.dtype, jnp.float32))[..., None]
    angles = t * jnp.asarray(frequencies(width // 2, shift=shift), t.dtype).reshape((1,) * (t.ndim - 1) + (-1,))
    parts = [jnp.cos(angles), jnp.sin(angles)]
    return jnp.concatenate(parts[::-1] if sin_first else parts, axis=-1)


def place_features(positions: np.ndarray, width: int) -> np.ndarray:
    """Equation (3), positions [T, 2] of rows and columns -> [T, width] float64, for a width that is a multiple of 4."""
    angles = np.asarray(positions, np.float64)[:, ::-1, None] * frequencies(width // 4)  # [T, column and row, n]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(angles), width)


def axis_widths(width: int, axes: int) -> tuple[int, ...]:
    """How many channels of a head turn with each axis: 2 floor(width / 2 axes), the first axis also takes the rest."""
    each = 2 * (width // (2 * axes))
    return (width - (axes - 1) * each, *(each,) * (axes - 1))


def tables(positions: np.ndarray, width: int, theta: float = 10_000.0) -> tuple[np.ndarray, np.ndarray]:
    """cos(f p) and sin(f p) of (4), for positions [T, axes] and heads of an even `width`: each [T, width / 2] float64.

    positions: any real numbers: pixels, or seconds x 25, so that sound and video that belong together stand together.
    """
    positions = np.asarray(positions, np.float64)
    widths = axis_widths(width, positions.shape[-1])
    angles = [p[:, None] * frequencies(w // 2, theta)[None] for p, w in zip(positions.T, widths, strict=True)]
    angles = np.concatenate(angles, axis=-1)
    return np.cos(angles), np.sin(angles)


def rotate(x: Array, cos: Array, sin: Array, *, interleaved: bool = False) -> Array:
    """Equation (4) for x [B, T, H, d], computed in float32 or better, in the type of x.

    cos, sin: tables [T, d / 2], or [B, T, d / 2] where every example has positions of its own.

    interleaved: pairs are neighbours (x_0, x_1), (x_2, x_3), ...; else they are the two halves, (x_i, x_{i + d/2}).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    cos, sin = (jnp.asarray(t, wide).reshape(-1, x.shape[1], 1, t.shape[-1]) for t in (cos, sin))
    if interleaved:
        a, b = x[..., ::2].astype(wide), x[..., 1::2].astype(wide)
    else:
        a, b = jnp.split(x.astype(wide), 2, axis=-1)
    turned = (a * cos - b * sin, b * cos + a * sin)
    joined = jnp.stack(turned, axis=-1).reshape(x.shape) if interleaved else jnp.concatenate(turned, axis=-1)
    return joined.astype(x.dtype)
