"""What the tokens between two blocks are trained for, beside what comes out of the last one.

Features that tell examples apart make better samples, and sooner. `dispersive.py` and `self_flow.py` ask for them
without another network to learn them from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from mmgen_jax.types import Array, Key, Params

Look = Callable[[Mapping[str, Array], float], Array]  # (times, share of the blocks) -> tokens [B, T, D]


class Representation(Protocol):
    """A loss of the tokens at one depth.

    Attributes:
        weight: of the loss.
        depth: the share of the blocks after which tokens are taken, in (0, 1].
        needs_tokens: whether every token must have a time of its own (`Times.tokens`).
    """

    weight: float
    depth: float
    needs_tokens: ClassVar[bool]

    def init(self, key: Key, width: int) -> dict[str, Params]:
        """Parameters of its own, by a name that no part of the network has."""

    def error(
        self, params: Params, tokens: Array, t: Mapping[str, Array], present: Mapping[str, Array], look: Look
    ) -> Array:
        """The loss [B], without its weight, of tokens [B, T, D] of all modalities in the order of their names.

        t: their times [B], or [B, T_m] of their tokens. present: bool [B].
        look: what a teacher, which gets no gradient, makes of the same examples with the same noise at other times.
        """


def after(share: float, blocks: int) -> int:
    """How many of the blocks a share is: the nearest number, at least one."""
    return max(1, round(share * blocks))


def require_share(owner: str, field: str, value: float) -> None:
    """Raises ValueError if a share of the blocks is not in (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"{owner}: {field} is {value}, but must be above 0 and at most 1")
