"""Absorbing diffusion of tokens: each is replaced by the mask with a probability that grows with time, then guessed.

    x_t = mask with probability m(t), else x;   m = 1 - kappa, m(0) = 0, m(1) = 1                            (1)
    -log p(x) <= E_t [m'(t) / m(t) sum_{masked} -log p(x_l | x_t)]                                           (2)
    a masked token is unmasked between t and s with probability (m(t) - m(s)) / m(t)                          (3)

(Sahoo et al. 2024, arXiv:2406.07524; Shi et al. 2024, arXiv:2406.04329.) With m(t) = t these are 1/t and (t - s) / t.

The other way to fill in masks, MaskGIT's, is in `nn/maskgit.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmgen_jax.nn.maskgit import draw
from mmgen_jax.types import Array, Key

Rate = Callable[[Array], Array]  # m of equation (1), elementwise


def linear(t: Array) -> Array:
    """m(t) = t."""
    return t


def cosine(t: Array) -> Array:
    """m(t) = 1 - cos(pi t / 2): fewer masks in the middle."""
    return 1 - jnp.cos(jnp.pi / 2 * t)


def corrupt(key: Key, tokens: Array, t: Array, mask_id: int, rate: Rate = linear) -> Array:
    """Equation (1): tokens [B, ...] at times t [B], or of any number of leading axes."""
    masked = jax.random.uniform(key, tokens.shape, t.dtype) < rate(aligned(t, tokens))
    return jnp.where(masked, mask_id, tokens)


def aligned(t: Array, tokens: Array) -> Array:
    """Times with as many axes as the tokens, missing ones at the end."""
    return t.reshape(t.shape + (1,) * (tokens.ndim - t.ndim))


def elbo_weight(t: Array, rate: Rate = linear) -> Array:
    """m'(t) / m(t) of equation (2), of the cross-entropy in nats summed over masked tokens; infinite at t = 0."""
    value, slope = jax.jvp(rate, (t,), (jnp.ones_like(t),))
    return slope / value


def unmask(
    key: Key, tokens: Array, logits: Array, t: Array, s: Array, mask_id: int, *,
    temperature: float = 1.0, rate: Rate = linear,
) -> Array:  # fmt: skip
    """Equation (3): tokens [B, ...] at t to s < t, new ones from softmax(logits [B, ..., V] / temperature).

    t, s: [B], or any number of leading axes. s = 0 unmasks all, t = s none. temperature: 0 takes the most probable.
    """
    which, what = jax.random.split(key)
    before, after = (rate(aligned(time, tokens)) for time in (t, s))
    share = 1 - after / jnp.where(before > 0, before, 1)
    chosen = (tokens == mask_id) & (jax.random.uniform(which, tokens.shape, logits.dtype) < share)
    return jnp.where(chosen, draw(what, logits, temperature), tokens)
