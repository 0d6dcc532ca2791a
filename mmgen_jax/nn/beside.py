"""Encoders of several modalities side by side, and layers that see what all of them say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.nn.mlp import DenseEncoder
from mmgen_jax.types import Array


class SideBySide(nn.Module):
    """Values {name: [B, *shape]} -> mean and log-variance [B, 2 latent], as `vae.JointEncoder(network=...)` wants it.

    Each modality becomes `latent` numbers; those of all of them, in the order of the values, go through ReLU layers and
    a linear one. What is missing counts as zeros. This is MultiVae's joint encoder (MultipleHeadJointEncoder).

    Attributes:
        encoders: by modality, [B, *shape] -> [B, F].
        latent: dimensions of the code.
        hidden: widths of the ReLU layers.

    Raises:
        ValueError: a modality has no encoder.
    """

    encoders: Mapping[str, nn.Module]
    latent: int
    hidden: tuple[int, ...] = (512, 512)
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoders", FrozenDict(self.encoders))  # a model that holds it can be hashed
        super().__post_init__()

    @nn.compact
    def __call__(self, values: Mapping[str, Array], present: Array) -> Array:
        if missing := [name for name in values if name not in self.encoders]:
            raise ValueError(f"encoders are of {list(self.encoders)}, but must be of {missing} as well")
        said = []
        for name, x in values.items():
            features = self.encoders[name].clone(parent=self, name=name)(x)
            said.append(nn.Dense(self.latent, dtype=self.dtype, name=f"{name}_mean")(features))
        x = DenseEncoder(self.hidden, self.dtype, name="layers")(jnp.concatenate(said, axis=-1))
        return nn.Dense(2 * self.latent, dtype=self.dtype)(x)
