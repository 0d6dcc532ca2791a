"""From logits to tokens, one after the other or by filling in masks: functions that know no model.

What the model says is a function. To write on, `step(memory, tokens, i) -> (logits [B, V] of place i, memory)`, where
tokens [B, L] are right before place i; what it remembers between two calls is its own affair, so it may have a cache,
or look at all tokens again. The leaves of a memory begin with the axis of the batch. To fill in,
`predict(tokens) -> logits [B, L, V]`; MaskGIT's way is in `nn/maskgit.py`.

    temperature      l <- l / temperature;   0: the most probable token                                             (1)
    top-k            l <- -inf for all but the k largest                             (Fan et al. 2018)              (2)
    top-p            the same for all but the fewest that have probability p         (Holtzman et al. 2020)         (3)
    repetition       l <- l / penalty if l > 0 else l penalty, for tokens so far     (Keskar et al. 2019)           (4)
    guidance         l <- l(none) + sum_k s_k (l(C_k) - l(none))                     (Mizrahi et al. 2023)          (5)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmgen_jax.nn.maskgit import draw
from mmgen_jax.types import Array, Key

Step = Callable[[Any, Array, Array], tuple[Array, Any]]
NEVER = -1e30  # a logit


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a token is drawn: (4), then (1), (2) and (3).

    Raises:
        ValueError: a field is outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    penalty: float = 1.0

    def __post_init__(self) -> None:
        for field, fits, what in (
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1, or None"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("penalty", self.penalty > 0, "above 0"),
        ):
            if not fits:
                raise ValueError(f"Choice: {field} is {getattr(self, field)!r}, but must be {what}")

    def logits(self, logits: Array, seen: Array | None = None) -> Array:
        """Logits [..., V] of what may be drawn. seen: bool [..., V], the tokens so far."""
        if self.penalty != 1 and seen is not None:
            punished = jnp.where(logits > 0, logits / self.penalty, logits * self.penalty)
            logits = jnp.where(seen, punished, logits)
        if self.temperature == 0:
            return jnp.where(logits >= logits.max(axis=-1, keepdims=True), logits, NEVER)
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits = jnp.where(logits >= jax.lax.top_k(logits, self.top_k)[0][..., -1:], logits, NEVER)
        if self.top_p < 1:
            ordered = jnp.sort(logits, axis=-1, descending=True)
            p = jax.nn.softmax(ordered, axis=-1)
            kept = jnp.cumsum(p, axis=-1) - p < self.top_p  # what comes before it is not enough yet
            least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
            logits = jnp.where(logits >= least, logits, NEVER)
        return logits


def guided(logits: Array, scales: Sequence[float]) -> Array:
    """Equation (5) of logits [1 + K, ...]: given nothing, and given each of K conditions."""
    nothing, *conditions = jnp.unstack(jax.nn.log_softmax(logits))
    return nothing + sum(s * (one - nothing) for s, one in zip(scales, conditions, strict=True))


def write(
    key: Key, step: Step, memory: Any, batch: int, length: int, choice: Choice = Choice(), *,
    end: int | None = None, padding: int = 0,
) -> Array:  # fmt: skip
    """Tokens int32 [batch, length], drawn one after the other; after `end`, if there is one, `padding`."""

    def body(carry: tuple, inputs: tuple[Array, Key]) -> tuple[tuple, None]:
        (memory, tokens, seen, done), (i, key) = carry, inputs
        logits, memory = step(memory, tokens, i)
        token = draw(key, choice.logits(logits, seen)).astype(jnp.int32)
        token = jnp.where(done, padding, token)
        seen = seen | jax.nn.one_hot(token, seen.shape[-1], dtype=bool)
        done = done if end is None else done | (token == end)
        return (memory, tokens.at[:, i].set(token), seen, done), None

    tokens = jnp.full((batch, length), padding, jnp.int32)
    kinds = jax.eval_shape(step, memory, tokens, jnp.zeros((), jnp.int32))[0].shape[-1]
    start = (memory, tokens, jnp.zeros((batch, kinds), bool), jnp.zeros(batch, bool))
    return jax.lax.scan(body, start, (jnp.arange(length), jax.random.split(key, length)))[0][1]


def beam(
    step: Step, memory: Any, batch: int, length: int, width: int, *, end: int | None = None, padding: int = 0,
    penalty: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """The `width` most probable beginnings are followed: tokens [batch, width, length], best first, and scores.

    The score is log p / n^penalty for n tokens up to the end (Wu et al. 2016, arXiv:1609.08144, simplified).
    memory: of `batch` rows. Where width is at least the number of all sequences, the best of all is found.
    """
    repeated = jax.tree.map(lambda x: jnp.repeat(x, width, axis=0), memory)
    tokens = jnp.full((batch, width, length), padding, jnp.int32)
    # At first all beams are alike: all but one of them must not count.
    log_p = jnp.where(jnp.arange(width)[None] == 0, 0.0, NEVER) * jnp.ones((batch, 1))

    def body(carry: tuple, i: Array) -> tuple[tuple, None]:
        memory, tokens, log_p, done = carry
        logits, memory = step(memory, tokens.reshape(-1, length), i)
        each = jax.nn.log_softmax(logits).reshape(batch, width, -1)
        kinds = each.shape[-1]
        stay = jnp.where(jnp.arange(kinds) == padding, 0.0, NEVER)[None, None]
        total = log_p[..., None] + jnp.where(done[..., None], stay, each)
        log_p, best = jax.lax.top_k(total.reshape(batch, -1), width)
        parent, token = best // kinds, (best % kinds).astype(jnp.int32)
        rows = (jnp.arange(batch)[:, None] * width + parent).reshape(-1)
        memory = jax.tree.map(lambda x: x[rows], memory)
        tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1).at[:, :, i].set(token)
        done = jnp.take_along_axis(done, parent, axis=1)
        return (memory, tokens, log_p, done if end is None else done | (token == end)), None

    start = (repeated, tokens, log_p, jnp.zeros((batch, width), bool))
    (_, tokens, log_p, _), _ = jax.lax.scan(body, start, jnp.arange(length))
    scores = log_p / written(tokens, end).astype(log_p.dtype) ** penalty
    order = jnp.argsort(-scores, axis=1)
    return jnp.take_along_axis(tokens, order[..., None], axis=1), jnp.take_along_axis(scores, order, axis=1)


def written(tokens: Array, end: int | None) -> Array:
    """How many tokens [..., L] there are up to and with the first `end`; all where there is none."""
    if end is None:
        return jnp.full(tokens.shape[:-1], tokens.shape[-1])
    ended = jnp.cumsum(tokens == end, axis=-1)
    return jnp.minimum((ended == 0).sum(-1) + 1, tokens.shape[-1])


def in_random_order(
    key: Key, predict: Callable[[Array], Array], tokens: Array, steps: int, mask_id: int, choice: Choice = Choice()
) -> Array:
    """Fills the masks of `tokens` [B, L] in random order, equally many in each of `steps` steps (4M's ROAR)."""
    order, draws = jax.random.split(key)
    place = jnp.where(tokens == mask_id, jax.random.uniform(order, tokens.shape), 2.0)
    place = jnp.argsort(jnp.argsort(place, axis=-1), axis=-1)
    count = (tokens == mask_id).sum(-1, keepdims=True)

    def body(tokens: Array, inputs: tuple[Array, Key]) -> tuple[Array, None]:
        k, key = inputs
        drawn = draw(key, choice.logits(predict(tokens))).astype(tokens.dtype)
        now = (tokens == mask_id) & (place * steps < count * (k + 1))
        return jnp.where(now, drawn, tokens), None

    return jax.lax.scan(body, tokens, (jnp.arange(steps), jax.random.split(draws, steps)))[0]
