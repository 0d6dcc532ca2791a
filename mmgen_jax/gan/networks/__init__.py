"""Architectures: how a generator makes one modality of a code, and how a critic looks at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn

from mmgen_jax.types import Array

RANDOM = "critic"  # the random numbers of critics that have any: without them they are functions of the example alone


class Architecture(Protocol):
    """A frozen dataclass that gives both players' networks for examples of any shape (*space, channels).

    `features` is the width that the modality asks for. A shape without space, (channels,), is allowed.
    """

    def generator(self, shape: Sequence[int], features: int, dtype: Any) -> nn.Module: ...  # [B, Z] -> [B, *shape]
    def critic(self, outputs: int, features: int, dtype: Any) -> nn.Module: ...  # [B, *shape] -> [B, outputs]


@runtime_checkable
class Noisy(Protocol):
    """An `Architecture` whose generators are called with further normal numbers, [B, *shape] each, after the code."""

    def noise(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]: ...  # of one example, for each of them


@runtime_checkable
class Styled(Protocol):
    """A generator's network in two parts: what it makes of the code first, and what it makes of that."""

    def style(self, code: Array) -> Array: ...  # [B, Z] -> [B, layers, W]
    def made(self, style: Array, *noise: Array) -> Array: ...  # -> [B, *shape]


class Translator(Protocol):
    """A frozen dataclass that gives the network from examples to others in the same places."""

    def translator(self, channels: int, features: int, dtype: Any) -> nn.Module: ...

    # [B, *space, C] and a code [B, Z], perhaps of no numbers -> [B, *space, channels]
