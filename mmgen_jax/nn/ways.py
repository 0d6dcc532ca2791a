"""Ways from one code to another.

    between      (sin((1 - s) w) a + sin(s w) b) / sin w,     w the angle between a and b                       (1)

White 2016, arXiv:1609.04468: the length of noise in between is what a generator knows, where on a straight line it
would be too short.
"""

from __future__ import annotations

import jax.numpy as jnp

from mmgen_jax.types import Array

STRAIGHT = 1e-3  # the sine below which (1) is a straight line
SMALL = 1e-12  # of lengths that are divided by


def between(a: Array, b: Array, share: Array | float) -> Array:
    """Equation (1) along the last axis: a [..., Z] at a share s of 0, b at 1; a share [n] for a way of n steps.

    Returns [..., Z], or [n, ..., Z].
    """
    share = jnp.asarray(share)
    a, b = (jnp.expand_dims(x, range(share.ndim)) for x in (a, b))
    share = jnp.expand_dims(share, range(share.ndim, a.ndim))
    lengths = jnp.linalg.norm(a, axis=-1, keepdims=True) * jnp.linalg.norm(b, axis=-1, keepdims=True)
    angle = jnp.arccos(jnp.clip((a * b).sum(-1, keepdims=True) / jnp.maximum(lengths, SMALL), -1, 1))
    flat = jnp.sin(angle) < STRAIGHT
    sine = jnp.where(flat, 1, jnp.sin(angle))
    first = jnp.where(flat, 1 - share, jnp.sin((1 - share) * angle) / sine)
    second = jnp.where(flat, share, jnp.sin(share * angle) / sine)
    return first * a + second * b
