"""Dispersive loss: the features of different examples repel each other; a contrastive loss without positive pairs.

    D_ij = |z_i - z_j|^2 / F,   z [B, F]: all tokens of an example after a quarter of the blocks                 (1)
    L = log mean_ij exp(-D_ij / tau)       over all pairs of examples of which anything is there, i = j too      (2)

(Wang and He 2025, arXiv:2506.09027, the form InfoNCE with squared distances.) (2) is one number of a whole batch, at
most 0: every example is said to have it, so that their mean is it. Under `jit` the batch is the global one; in a
`shard_map` program it is the rows of one device, and the mean over devices is of their own pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from mmgen_jax.diffusion.representation import Look, require_share
from mmgen_jax.types import Array, Key, Params


@dataclasses.dataclass(frozen=True)
class Dispersive:
    """The loss (2).

    Attributes:
        weight: of it in the loss of the model.
        temperature: tau.
        depth: the share of the blocks after which tokens are taken.

    Raises:
        ValueError: the temperature is not positive, the weight negative, or the depth not in (0, 1].
    """

    weight: float = 0.5
    temperature: float = 0.5
    depth: float = 0.25
    needs_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"Dispersive: weight is {self.weight}, but must be at least 0")
        if self.temperature <= 0:
            raise ValueError(f"Dispersive: temperature is {self.temperature}, but must be positive")
        require_share("Dispersive", "depth", self.depth)

    def init(self, key: Key, width: int) -> dict[str, Params]:
        """None."""
        return {}

    def error(
        self, params: Params, tokens: Array, t: Mapping[str, Array], present: Mapping[str, Array], look: Look
    ) -> Array:
        """(2) for each example, [B]: see `Representation`."""
        z = tokens.reshape(len(tokens), -1).astype(jnp.float32)
        products = jnp.matmul(z, z.T, precision="highest") / z.shape[1]  # differences of them are small
        squares = jnp.diag(products)
        distances = squares[:, None] + squares[None] - 2 * products
        there = jnp.stack(list(present.values())).any(axis=0)
        pairs = (there[:, None] & there[None]).astype(jnp.float32)
        mean = jnp.sum(pairs * jnp.exp(-distances / self.temperature)) / jnp.maximum(jnp.sum(pairs), 1)
        return jnp.broadcast_to(jnp.log(jnp.where(there.any(), mean, 1.0)), there.shape)
