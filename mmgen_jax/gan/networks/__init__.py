"""Architectures: how a generator makes one modality of a code, and how a critic looks at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import flax.linen as nn

RANDOM = "critic"  # the random numbers of critics that have any: without them they are functions of the example alone


class Architecture(Protocol):
    """A frozen dataclass that gives both players' networks for examples of any shape (*space, channels).

    `features` is the width that the modality asks for. A shape without space, (channels,), is allowed.
    """

    def generator(self, shape: Sequence[int], features: int, dtype: Any) -> nn.Module: ...  # [B, Z] -> [B, *shape]
    def critic(self, outputs: int, features: int, dtype: Any) -> nn.Module: ...  # [B, *shape] -> [B, outputs]
