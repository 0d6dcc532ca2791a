"""How the network learns which way real values move: flow matching, and what its companions have in common with it.

    L = |u(x_t, t) - v|^2,   v = dx_t / dt, as noise and data say                                                 (1)

(Lipman et al. 2023, arXiv:2210.02747.) Samples follow u in many small steps. `mean_flow.py` and `shortcut.py` tell the
network the span d of a step as well, u(x_t, t, d), so that few steps are enough:

    x_{t - d} = x_t - d u(x_t, t, d)                                                                              (2)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key

Values = dict[str, Array]
Said = tuple[Values, Any]  # outputs, and whatever else is to be known of the network
Network = Callable[[Values, Values, Values], Said]  # of values, times and spans


class Objective(Protocol):
    """What real values are trained for, of whatever the network predicts.

    Attributes:
        spans: whether the network is told d. Then it predicts velocities, and samples are made by Euler's steps (2).
        differentiated: whether its derivatives by time are taken, forwards: it must be smooth then.
        counts: the numbers of steps in which samples can be made; None: any.
    """

    spans: ClassVar[bool]
    differentiated: ClassVar[bool]

    @property
    def counts(self) -> tuple[int, ...] | None: ...

    def draw(self, key: Key, t: Values, moving: Mapping[str, Array]) -> tuple[Values, Values]:
        """The times [B] to train at, given those that were drawn, and spans [B] of all modalities.

        moving: whether they are on their way, for those with real values. All others stand still, d = 0.
        """

    def errors(
        self, network: Network, teacher: Network, seen: Values, targets: Values, t: Values, spans: Values
    ) -> tuple[Said, Values]:
        """What the network says, and the error, [B] or [B, *shape], of each modality that has a target.

        teacher: the same network, with parameters that are not trained.
        seen: values [B, *shape] of all modalities, at times t [B], or [B, T_m] of their tokens without spans.
        targets: what (1) would have the network say, [B, *shape], for those with real values.
        """


@dataclasses.dataclass(frozen=True)
class FlowMatching:
    """Equation (1), for predictions of any kind."""

    spans: ClassVar[bool] = False
    differentiated: ClassVar[bool] = False
    counts: ClassVar[None] = None

    def draw(self, key: Key, t: Values, moving: Mapping[str, Array]) -> tuple[Values, Values]:
        """The times as they are, and no spans."""
        return t, standing(t)

    def errors(
        self, network: Network, teacher: Network, seen: Values, targets: Values, t: Values, spans: Values
    ) -> tuple[Said, Values]:
        """What the network says, and (1) [B, *shape], value by value: their times, and so their weights, may differ."""
        out, rest = network(seen, t, spans)
        return (out, rest), {name: jnp.square(out[name] - target) for name, target in targets.items()}


def standing(t: Values) -> Values:
    """Spans of nothing that moves."""
    return jax.tree.map(jnp.zeros_like, t)


def squared_error(out: Array, target: Array) -> Array:
    """The mean over everything but the first axis, [B]."""
    return jnp.square(out - target).mean(axis=tuple(range(1, target.ndim)))
