"""Encoders with two towers: one that says what is shared with other modalities, one that says what is private."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.types import Array


class Towers(nn.Module):
    """A user's encoder twice, [B, *shape] -> [B, outputs], each copy with a linear layer of its own.

    The networks of MMVAE+ (Palumbo et al. 2023, openreview sdQGxouELX) are such. With a single encoder the shared and
    the private code are linear in the same features.

    Attributes:
        encoder: [B, *shape] -> [B, F]; its copies, for the shared and for the private code, have their own parameters.
        private: dimensions of the private code, as the model has it for this modality.
        outputs, dtype: set by the modality.

    Raises:
        ValueError: `outputs` are not twice what `private` is a part of.
    """

    encoder: nn.Module
    private: int
    outputs: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        latent = self.outputs // 2 - self.private
        if self.outputs % 2 or min(latent, self.private) < 1:
            raise ValueError(f"Towers: a private code of {self.private} is no part of {self.outputs} / 2 outputs.")
        shared, own = (self.encoder.clone(parent=self, name=name)(x) for name in ("shared", "own"))
        mean, raw = jnp.split(nn.Dense(2 * latent, dtype=self.dtype)(shared), 2, axis=-1)
        own_mean, own_raw = jnp.split(nn.Dense(2 * self.private, dtype=self.dtype)(own), 2, axis=-1)
        return jnp.concatenate([mean, own_mean, raw, own_raw], axis=-1)
