"""The multilayer perceptron."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.types import Array


class MLP(nn.Module):
    """[B, ...] -> [B, *outputs]: flatten, then SiLU layers of the widths `hidden`, then one linear layer."""

    outputs: int | tuple[int, ...]
    hidden: tuple[int, ...] = (256,)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.silu(nn.Dense(width, dtype=self.dtype)(x))
        outputs = (self.outputs,) if isinstance(self.outputs, int) else self.outputs
        return nn.Dense(math.prod(outputs), dtype=self.dtype)(x).reshape(-1, *outputs)


class DenseEncoder(nn.Module):
    """[B, ...] -> [B, hidden[-1]]: ReLU layers all the way, a user's encoder; MultiVae's default (Encoder_VAE_MLP)."""

    hidden: tuple[int, ...] = (512, 512)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return x


# A third of the usual variance 1 / fan-in. A decoder that is loud before it has learned anything punishes every code
# that is not exact, and the bounds that decode samples of single experts (MMVAE, MMVAE+) answer by codes without
# content, from which they may not recover: `benchmarks/versus_multivae.py quality`.
quiet = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class DenseDecoder(nn.Module):
    """z [B, Z] -> [B, *shape] in (0, 1): a ReLU layer and a sigmoid; MultiVae's default (Decoder_AE_MLP)."""

    shape: tuple[int, ...]
    hidden: int = 512
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        x = nn.relu(nn.Dense(self.hidden, kernel_init=quiet, dtype=self.dtype)(z))
        x = nn.sigmoid(nn.Dense(math.prod(self.shape), kernel_init=quiet, dtype=self.dtype)(x))
        return x.reshape(-1, *self.shape)
