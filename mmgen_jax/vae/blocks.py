"""The small networks between the codes of a hierarchy: hidden layers, a user's own or one by default, and a linear end.

The end is linear because codes are unbounded: no squashed output could predict their mean or log-variance.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.modalities.common import Headed
from mmgen_jax.types import Array, Key, Params


class Layer(nn.Module):
    """[B, inputs] -> [B, features]: a linear layer and SiLU."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.silu(nn.Dense(self.features, dtype=self.dtype)(x))


def hidden(block: nn.Module | None, features: int, dtype: str) -> nn.Module:
    """[B, inputs] -> [B, features]: `block`, or a `Layer`."""
    return Layer(features, jnp.dtype(dtype)) if block is None else block


def headed(block: nn.Module | None, features: int, outputs: int, dtype: str) -> nn.Module:
    """[B, inputs] -> [B, outputs]: the same and a linear layer."""
    return Headed(hidden(block, features, dtype), outputs, jnp.dtype(dtype))


def fresh(network: nn.Module, key: Key, inputs: int) -> Params:
    """Fresh parameters of a network on [B, inputs]."""
    return network.lazy_init(key, jax.ShapeDtypeStruct((1, inputs), jnp.float32))["params"]


def apply(network: nn.Module, params: Params, x: Array) -> Array:
    """What a network says of x [B, inputs], float32 or better."""
    out = network.apply({"params": params}, x)
    return out.astype(jnp.promote_types(out.dtype, jnp.float32))


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless each is a whole number above 0."""
    for field, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"{field} is {size!r}, but must be a whole number of at least 1")


def check_block(block: Any) -> None:
    """Raise ValueError unless it is a linen module or None."""
    if block is not None and not isinstance(block, nn.Module):
        raise ValueError(f"block is {block!r}, but must be an instance of a flax.linen module or None")
