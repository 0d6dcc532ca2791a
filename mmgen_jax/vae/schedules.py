"""Numbers that change with the step: the weight of a KL (warm-up, Bowman et al. 2016, arXiv:1511.06349), of a modality.

value(t) = start + (stop - start) min(t / steps, 1)      (1)
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Ramp:
    """Equation (1).

    start: the value at step 0.
    stop: the value from `steps` on.
    steps: how long it takes.
    """

    start: float
    stop: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Ramp: steps is {self.steps}, but must be at least 1")


Schedule = float | Ramp


def at(schedule: Schedule, step: Array) -> Array:
    """The value of a schedule at a step; a number is always the same."""
    if not isinstance(schedule, Ramp):
        return jnp.asarray(schedule)
    return schedule.start + (schedule.stop - schedule.start) * jnp.minimum(step / schedule.steps, 1.0)
