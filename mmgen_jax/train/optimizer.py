"""The optimiser as an experiment names it: a dozen typed fields, made into an optax chain.

    g <- g min(1, clip / |g|)                     clip by global norm
    u <- -rate(t) (direction(g) + decay params)   decay decoupled from the direction (Loshchilov and Hutter, 2019)

Decay is for matrices and kernels only, not for biases, norm scales and other vectors. An experiment that needs another
optimiser can give any frozen dataclass with the same `ema`, `make` and `rate`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import optax

Name = Literal["adamw", "adam", "lion", "sgd"]
Schedule = Literal["constant", "cosine", "linear"]


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Learning rates and lengths are per training step, whatever `accumulate` is.

    `warmup` steps raise the rate linearly to `learning_rate`; then it stays, or falls to zero at the last step along a
    cosine or a line. `clip` bounds the global norm of the gradient (None: not at all). `accumulate` batches are
    averaged into one update. `b1` is the momentum of sgd; adam is adamw for which decay makes no sense. `ema` is the
    decay of the average of the parameters that is evaluated and sampled from (0: none; typically 0.999).

    Raises ValueError for a field outside its range.
    """

    name: Name = "adamw"
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    b1: float = 0.9
    b2: float = 0.999
    ema: float = 0.0

    def __post_init__(self) -> None:
        allowed = {
            "name": (self.name in get_args(Name), f"one of {get_args(Name)}"),
            "learning_rate": (self.learning_rate > 0, "more than 0"),
            "schedule": (self.schedule in get_args(Schedule), f"one of {get_args(Schedule)}"),
            "warmup": (self.warmup >= 0, "at least 0"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "clip": (self.clip is None or self.clip > 0, "None or more than 0"),
            "accumulate": (self.accumulate >= 1, "at least 1"),
            "b1": (0 <= self.b1 < 1, "in [0, 1)"),
            "b2": (0 <= self.b2 < 1, "in [0, 1)"),
            "ema": (0 <= self.ema < 1, "in [0, 1)"),
        }
        for field, (fine, rule) in allowed.items():
            if not fine:
                raise ValueError(f"optimizer.{field} is {getattr(self, field)!r}, but must be {rule}")

    def rate(self, steps: int) -> optax.Schedule:
        """The learning rate at each of `steps` training steps. ValueError if the warm-up is as long as the training."""
        if self.warmup and self.warmup >= steps:
            raise ValueError(f"optimizer.warmup is {self.warmup}, but must be less than steps = {steps}")
        rest = steps - self.warmup
        after = {
            "constant": optax.constant_schedule(self.learning_rate),
            "cosine": optax.cosine_decay_schedule(self.learning_rate, rest),
            "linear": optax.linear_schedule(self.learning_rate, 0.0, rest),
        }[self.schedule]
        # From 1/warmup at step 0, not from 0: no step is wasted.
        before = optax.linear_schedule(self.learning_rate / max(self.warmup, 1), self.learning_rate, self.warmup - 1)
        return optax.join_schedules([before, after], [self.warmup]) if self.warmup else after

    def make(self, steps: int) -> optax.GradientTransformation:
        """The gradient transformation for a training of `steps` steps."""
        rate = self.rate(steps)
        direction = {
            "adamw": lambda: optax.scale_by_adam(self.b1, self.b2),
            "adam": lambda: optax.scale_by_adam(self.b1, self.b2),
            "lion": lambda: optax.scale_by_lion(self.b1, self.b2),
            "sgd": lambda: optax.trace(self.b1) if self.b1 else optax.identity(),
        }[self.name]()
        tx = optax.chain(
            optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip),
            direction,
            optax.add_decayed_weights(self.weight_decay, decayed) if self.weight_decay else optax.identity(),
            # The chain counts updates, of which there is one in `accumulate` steps.
            optax.scale_by_learning_rate(lambda count: rate(count * self.accumulate)),
        )
        return tx if self.accumulate == 1 else optax.MultiSteps(tx, self.accumulate).gradient_transformation()


def decayed(params: Any) -> Any:
    """True for what weight decay applies to: at least two axes, and not called bias or scale.

    The names matter where the blocks of a network are stacked, `[layers, D]`.
    """

    def is_decayed(path: Any, x: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return x.ndim >= 2 and name not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_decayed, params)
