"""Adam on random rows of the codes, all steps in one compiled scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import lax

from mmgen_jax.types import Array, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the network of a prior is trained.

    Attributes:
      steps: of Adam, with gradients of norm at most 1.
      batch_size: codes a step, drawn with replacement.
      rate: of learning at the first step, falling to zero along half a cosine.

    Raises:
      ValueError: one is not positive.
    """

    steps: int = 3_000
    batch_size: int = 256
    rate: float = 1e-3

    def __post_init__(self) -> None:
        for field, value in dataclasses.asdict(self).items():
            if value <= 0:
                raise ValueError(f"{field} is {value}, but must be positive")

    def minimise(self, loss: Callable[[Params, Key, Array], Array], params: Params, key: Key, codes: Array) -> Params:
        """Parameters after training on the mean of `loss(params, key, rows [B, D]) -> [B]` over rows of `codes`."""
        schedule = optax.cosine_decay_schedule(self.rate, self.steps)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

        def step(state: tuple[Params, Any], key: Key) -> tuple[tuple[Params, Any], None]:
            params, opt = state
            rows_key, loss_key = jax.random.split(key)
            rows = codes[jax.random.randint(rows_key, (self.batch_size,), 0, len(codes))]
            grads = jax.grad(lambda params: loss(params, loss_key, rows).mean())(params)
            updates, opt = tx.update(grads, opt, params)
            return (optax.apply_updates(params, updates), opt), None

        (params, _), _ = lax.scan(step, (params, tx.init(params)), jax.random.split(key, self.steps))
        return params
