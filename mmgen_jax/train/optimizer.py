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

Name = Literal["adamw", "lion", "sgd"]
Schedule = Literal["constant", "cosine", "linear"]


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Lengths and rates are per training step, whatever `accumulate` is.

    Attributes:
        name: adamw (Adam where weight_decay is 0), lion, or sgd.
        learning_rate: the largest the rate becomes.
        schedule: the rate after the warm-up: constant, or falling to `final` at the last step by a cosine or a line.
        final: the rate at the end of a schedule that is not constant.
        warmup: steps in which the rate rises linearly to `learning_rate`.
        weight_decay: how strongly matrices and kernels are drawn to 0.
        clip: bound on the global norm of the gradient; None for no bound.
        accumulate: batches whose mean gradient makes one update.
        b1: decay of the first moment; the momentum of sgd.
        b2: decay of the second moment.
        ema: decay of the average of the parameters that is evaluated and sampled from, such as 0.999; 0 for none.

    Raises:
        ValueError: a field is outside its range.
    """

    name: Name = "adamw"
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    final: float = 0.0
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
            "final": (0 <= self.final <= self.learning_rate, f"in [0, learning_rate = {self.learning_rate}]"),
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
            "cosine": optax.cosine_decay_schedule(self.learning_rate, rest, self.final / self.learning_rate),
            "linear": optax.linear_schedule(self.learning_rate, self.final, rest),
        }[self.schedule]
        # From 1/warmup at step 0, not from 0: no step is wasted.
        before = optax.linear_schedule(self.learning_rate / max(self.warmup, 1), self.learning_rate, self.warmup - 1)
        return optax.join_schedules([before, after], [self.warmup]) if self.warmup else after

    def make(self, steps: int) -> optax.GradientTransformation:
        """The gradient transformation for a training of `steps` steps."""
        rate = self.rate(steps)
        direction = {
            "adamw": lambda: optax.scale_by_adam(self.b1, self.b2),
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
