"""Filling in masks, most certain first: decoding that knows only a function `tokens -> logits`.

MaskGIT (Chang et al. 2022, arXiv:2202.04200) draws a token for every mask in each of T steps, and keeps what is most
certain: by the confidence log p(token) + temperature Gumbel it masks again the m least confident,

    m = max(1, min(masked - 1, floor(n gamma((k + 1) / T)))),  gamma(r) = cos(pi r / 2) or 1 - r; 0 in the last  (1)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.types import Array, Key

Unmasking = Literal["cosine", "linear"]


def draw(key: Key, logits: Array, temperature: float = 1.0) -> Array:
    """Tokens [...] from softmax(logits [..., V] / temperature); at 0 the most probable."""
    return jnp.argmax(logits + temperature * jax.random.gumbel(key, logits.shape, logits.dtype), axis=-1)


def masks_left(n: int, steps: int, schedule: Unmasking = "cosine") -> np.ndarray:
    """Equation (1) for n tokens that are all masked at first: how many still are after each step, [steps], exactly."""
    if schedule not in get_args(Unmasking):
        raise ValueError(f"masks_left: schedule is {schedule!r}, but must be one of {', '.join(get_args(Unmasking))}")
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
    logits: [..., L, V]. left: how many masks stay, of equation (1); 0 unmasks all. temperature: of the confidence.
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
