"""Shortcut models: a step is worth two of half its size, so the network learns long steps from its own shorter ones.

    u(x, t, d) = (u(x, t, d / 2) + u(x', t - d / 2, d / 2)) / 2,   x' = x - d / 2 u(x, t, d / 2)                  (1)
    L = |u(x_t, t, d) - stop(the right side of (1))|^2     for one example in `every`                             (2)
    L = |u(x_t, t, 0) - v|^2                               for the others, flow matching                          (3)
    d = 1, 1/2, ..., 2^(1 - halvings),  t = d, 2 d, ..., 1;   d / 2 = 2^-halvings is told as 0                    (4)

(Frans et al. 2024, arXiv:2410.12557.) The right side of (1) is said by the averaged parameters where there are any.
Here for several modalities: all that are on their way make the same step together; what is given clean, or not there,
stands still. Symbols have no velocity: they stand still in (1), and are learned as ever. Only `counts` steps can be
taken, because the network knows no other spans. Nothing is differentiated by time, so times are told as finely as in
flow matching, and attention may be fused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.diffusion.masked import aligned
from mmgen_jax.diffusion.objective import Network, Said, Values, squared_error, standing
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Shortcut:
    """The losses (2) and (3).

    Attributes:
        every: the first of so many examples learns (2), at the cost of two more evaluations for it alone. A batch
            should hold several times as many: one that holds a single example knows only (2).
        halvings: of (4).

    Raises:
        ValueError: one of them is below 1.
    """

    every: int = 8
    halvings: int = 7
    spans: ClassVar[bool] = True
    differentiated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field in ("every", "halvings"):
            if getattr(self, field) < 1:
                raise ValueError(f"Shortcut: {field} is {getattr(self, field)}, but must be at least 1")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of steps in which samples can be made: 1 / d of (4)."""
        return tuple(2**k for k in range(self.halvings))

    def draw(self, key: Key, t: Values, moving: Mapping[str, Array]) -> tuple[Values, Values]:
        """Times [B], later ones of (4) in examples that learn (2), and spans [B], one d for all of an example."""
        n = len(next(iter(t.values())))
        sizes = 1 / np.array(self.counts, np.float32)
        d = jax.random.choice(fold_name(key, "size"), sizes, (n,))
        chosen = jnp.arange(n) % self.every == 0
        times = {name: jnp.where(chosen, jnp.ceil(time / d) * d, time) for name, time in t.items()}
        return times, standing(t) | {name: jnp.where(chosen & there, d, 0.0) for name, there in moving.items()}

    def errors(
        self, network: Network, teacher: Network, seen: Values, targets: Values, t: Values, spans: Values
    ) -> tuple[Said, Values]:
        """What the network says, and (2) or (3) [B] for each modality that has a target: see `Objective`."""
        chosen = jax.tree.map(lambda x: x[:: self.every], (seen, t, spans))
        both = self.two_steps(teacher, *chosen, tuple(targets))
        said, errors = network(seen, t, spans), {}
        for name, v in targets.items():
            # Every row gets that of the chosen one before it: unlike a scatter, this moves nothing between devices.
            bootstrapped = jnp.repeat(jax.lax.stop_gradient(both[name]), self.every, axis=0)[: len(v)]
            target = jnp.where(aligned(spans[name] > 0, v), bootstrapped, v)
            errors[name] = squared_error(said[0][name], target)
        return said, errors

    def two_steps(self, network: Network, x: Values, t: Values, spans: Values, names: tuple[str, ...]) -> Values:
        """The right side of (1) for the modalities `names`."""
        half = {name: span / 2 for name, span in spans.items()}
        told = {name: jnp.where(h > 0.5**self.halvings, h, 0.0) for name, h in half.items()}
        first, _ = network(x, t, told)
        middle = {name: x[name] - aligned(half[name], x[name]) * first[name] for name in names}
        second, _ = network({**x, **middle}, {name: t[name] - half[name] for name in t}, told)
        return {name: (first[name] + second[name]) / 2 for name in names}
