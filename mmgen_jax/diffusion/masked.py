"""Absorbing diffusion of tokens: each is replaced by the mask with a probability that grows with time, then guessed.

    x_t = mask with probability m(t), else x;   m = 1 - kappa, m(0) = 0, m(1) = 1                            (1)
    -log p(x) <= E_t [m'(t) / m(t) sum_{masked} -log p(x_l | x_t)]                                           (2)
    a masked token is unmasked between t and s with probability (m(t) - m(s)) / m(t)                          (3)

(Sahoo et al. 2024, arXiv:2406.07524; Shi et al. 2024, arXiv:2406.04329.) With m(t) = t these are 1/t and (t - s) / t.

MaskGIT (Chang et al. 2022, arXiv:2202.04200) instead unmasks, in step k of T, what is most certain: with tokens
drawn for all masks and the confidence log p(token) + temperature Gumbel, it masks again the m least confident,

    m = max(1, min(masked - 1, floor(n gamma((k + 1) / T)))),  gamma(r) = cos(pi r / 2) or 1 - r; 0 in the last  (4)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.diffusion.schedules import require_one_of
from mmgen_jax.types import Array, Key

Rate = Callable[[Array], Array]  # m of equation (1), elementwise
Unmasking = Literal["cosine", "linear"]


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


def draw(key: Key, logits: Array, temperature: float = 1.0) -> Array:
    """Tokens [...] from softmax(logits [..., V] / temperature); at 0 the most probable."""
    return jnp.argmax(logits + temperature * jax.random.gumbel(key, logits.shape, logits.dtype), axis=-1)


def masks_left(n: int, steps: int, schedule: Unmasking = "cosine") -> np.ndarray:
    """Equation (4) for n tokens that are all masked at first: how many still are after each step, [steps], exactly."""
    require_one_of("masks_left", "schedule", schedule, get_args(Unmasking))
    if steps < 1:
        raise ValueError(f"masks_left: steps is {steps}, but must be at least 1")
    left = [n]
    for k in range(1, steps):
        left.append(max(1, min(left[-1] - 1, _floor_share(n, steps - k, steps, schedule))))
    return np.array([*left[1:], 0])


def _floor_share(n: int, rest: int, steps: int, schedule: Unmasking) -> int:
    """floor(n gamma(1 - rest / steps)). What rounding leaves just below a whole number is that number."""
    if schedule == "linear":
        return n * rest // steps
    return math.floor(n * math.sin(math.pi / 2 * rest / steps) + 1e-9)


def keep_confident(
    tokens: Array, drawn: Array, logits: Array, gumbel: Array, left: Array, temperature: Array, mask_id: int
) -> Array:
    """One step of MaskGIT without its draws.

    tokens, drawn, gumbel: [..., L], what there is, what was drawn for every place, the noise of the confidence.
    logits: [..., L, V]. left: how many masks stay, of equation (4); 0 unmasks all. temperature: of the confidence.
    """
    masked = tokens == mask_id
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], axis=-1)[..., 0]
    confidence = jnp.where(masked, log_p + temperature * gumbel, jnp.inf)
    again = jnp.where(left > 0, jnp.clip(left, 1, jnp.maximum(masked.sum(-1, keepdims=True) - 1, 1)), 0)
    cut = jnp.take_along_axis(jnp.sort(confidence, axis=-1), again, axis=-1)
    filled = jnp.where(masked, drawn, tokens)
    return jnp.where(confidence < cut, mask_id, filled)


def decode(
    key: Key, predict: Callable[[Array], Array], tokens: Array, steps: int, mask_id: int, *,
    temperature: float = 4.5, schedule: Unmasking = "cosine",
) -> Array:  # fmt: skip
    """MaskGIT: fills the masks of `tokens` [..., L] in `steps` steps, in one scan; the rest stays.

    predict: tokens -> logits [..., L, V]. temperature: of the confidence in the first step, 0 in the last.
    """

    def body(tokens: Array, inputs: tuple[Array, Array, Key]) -> tuple[Array, None]:
        left, temperature, key = inputs
        what, noise = jax.random.split(key)
        logits = predict(tokens)
        drawn = draw(what, logits).astype(tokens.dtype)
        gumbel = jax.random.gumbel(noise, tokens.shape, logits.dtype)
        return keep_confident(tokens, drawn, logits, gumbel, left, temperature, mask_id), None

    left = jnp.asarray(masks_left(tokens.shape[-1], steps, schedule), int)
    inputs = (left, jnp.linspace(temperature, 0, steps), jax.random.split(key, steps))
    return jax.lax.scan(body, tokens, inputs)[0]
