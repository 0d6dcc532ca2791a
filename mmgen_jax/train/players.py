"""The optimisers of two players, as one value for the loop.

The parameters of a game are {"generator": ..., "critic": ...}. Each player has an optimiser of its own, with its own
rate, schedule and moments; together they are one optax transformation, so that state, sharding, checkpoints and the
loop do not know that a game is played.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import optax

from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.types import Array

SHORTEST = 1e-8  # half-life that is divided by
ADAM = Optimizer(learning_rate=2e-4, b1=0.0, b2=0.99)  # without momentum, which makes players circle each other


@dataclasses.dataclass(frozen=True)
class Players:
    """`Players(generator=Optimizer(...), critic=Optimizer(...))`.

    Attributes:
        generator, critic: their optimisers; schedules are in steps of training for both.
        critic_steps: updates of the critic in one step, as the model has it.
        warmup: steps in which both rates rise linearly; the optimisers' own must be 0.
        ema: decay of the average of all parameters that is sampled from; 0 for none. The optimisers' own must be 0.

    Raises:
        ValueError: a field is outside its range.
    """

    generator: Optimizer = ADAM
    critic: Optimizer = ADAM
    critic_steps: int = 1
    warmup: int = 0
    ema: float = 0.0

    def __post_init__(self) -> None:
        for name in ("generator", "critic"):
            for field in ("ema", "warmup"):
                if value := getattr(getattr(self, name), field):
                    raise ValueError(f"optimizer.{name}.{field} is {value}, but must be 0: set optimizer.{field}")
        for field, least in (("critic_steps", 1), ("warmup", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"optimizer.{field} is {getattr(self, field)}, but must be at least {least}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"optimizer.ema is {self.ema}, but must be in [0, 1)")

    def rate(self, steps: int) -> optax.Schedule:
        """The generator's learning rate at each of `steps` training steps."""
        return dataclasses.replace(self.generator, warmup=self.warmup).rate(steps)

    def make(self, steps: int) -> optax.GradientTransformation:
        """The gradient transformation for a training of `steps` steps."""
        k = self.critic_steps
        generator = dataclasses.replace(self.generator, warmup=self.warmup)
        critic = dataclasses.replace(self.critic, warmup=self.warmup * k)
        players = {"generator": generator.make(steps), "critic": critic.make(steps * k)}
        return optax.partition(players, lambda params: {name: name for name in params})


def lazily(optimizer: Optimizer, every: int) -> Optimizer:
    """The optimiser of a player with a penalty at every k-th update (Karras et al. 2020, arXiv:1912.04958, appendix B).

    It sees k + 1 gradients where it saw k: with c = k / (k + 1) its rate is c times, its decays are to the power c.
    """
    c = every / (every + 1)
    rate, final, b1, b2 = optimizer.learning_rate * c, optimizer.final * c, optimizer.b1**c, optimizer.b2**c
    return dataclasses.replace(optimizer, learning_rate=rate, final=final, b1=b1, b2=b2)


def ema_decay(
    batch_size: int, half_life: float, seen: Array | float | None = None, ramp: float = 0.05
) -> Array | float:
    """The decay of an average in which an example counts half after `half_life` more: for `Players.ema`.

        decay = (1/2)^(batch_size / min(half_life, ramp seen))

    Karras et al. 2020, arXiv:2006.06676, have it so in their code. `seen` are the examples so far, with which an
    average begins short: for a loop of one's own, which asks for it again at each step. Without it there is no minimum;
    the library's own average begins short by another rule (`train.step.averaged`).
    """
    length = half_life if seen is None else jnp.maximum(jnp.minimum(half_life, ramp * seen), SHORTEST)
    return 0.5 ** (batch_size / length)
