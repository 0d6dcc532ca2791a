"""Classes: int32 []."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities.common import Direct, check_counts, check_parts, check_shape, headed
from mmgen_jax.modalities.likelihoods import Categorical
from mmgen_jax.nn.embed import TokenEmbed, TokenHead
from mmgen_jax.nn.mlp import MLP
from mmgen_jax.types import Array, Rendering


@dataclasses.dataclass(frozen=True)
class Label(Direct):
    """`Label(3, names=("cat", "dog", "owl"))`: one of a number of classes, with names or without.

    encoder, decoder: your own linen modules (classes [B] int32 -> [B, F]; [B, Z] -> logits [B, classes]).
    features: width of the hidden layer of the default networks.
    """

    classes: int
    _: dataclasses.KW_ONLY
    names: tuple[str, ...] = ()
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    features: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "classes", "features")
        check_parts(self)
        if not isinstance(self.names, tuple) or (self.names and len(set(self.names)) != self.classes):
            raise ValueError(
                f"Label: names must be a tuple of {self.classes} different names or empty, not {self.names!r}."
            )

    @property
    def likelihood(self) -> Categorical:
        return Categorical(self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def encoder_network(self, outputs: int, dtype: Any = jnp.float32) -> nn.Module:
        """Classes [B] -> [B, outputs]."""
        if self.encoder is not None:
            return headed(self.encoder, outputs, dtype)
        return OneHot(self.classes, MLP(outputs, (self.features,), dtype=dtype))

    def decoder_network(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> logits [B, classes]."""
        return self.decoder if self.decoder is not None else MLP(self.classes, (self.features,), dtype=dtype)

    def tokens_in(self, width: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B] -> [B, 1, width]."""
        return ClassEmbed(self.classes, width, dtype)

    def tokens_out(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, 1, width] -> logits [B, classes]."""
        return ClassHead(self.classes, dtype)

    def positions(self) -> np.ndarray:
        """[[0]]: a single token."""
        return np.zeros((1, 1), np.float32)

    def token_of(self) -> np.ndarray:
        """0, the single token, for each value: int32 [*shape]."""
        return np.zeros(self.shape, np.int32)

    def encode(self, raw: Any) -> np.ndarray:
        """The name or the number of a class as int32 []. Raises ValueError if there is no such class."""
        if isinstance(raw, bytes):
            raw = raw.decode()
        if isinstance(raw, str):
            if raw not in self.names:
                raise ValueError(f"Label: {raw!r} is none of the names {self.names!r}.")
            return np.array(self.names.index(raw), np.int32)
        return self._checked(raw).astype(np.int32)

    def decode(self, x: Any) -> str | int:
        """The name of the class, or its number where classes have no names."""
        number = int(self._checked(x))
        return self.names[number] if self.names else number

    def render(self, x: Any) -> Rendering:
        """A text file of the name or number."""
        return Rendering("txt", str(self.decode(x)).encode())

    def _checked(self, x: Any) -> np.ndarray:
        x = check_shape(self, x)
        if not np.issubdtype(x.dtype, np.integer) or not 0 <= x < self.classes:
            raise ValueError(f"Label: a class must be a whole number from 0 to {self.classes - 1}, not {x.item()!r}.")
        return x


class OneHot(nn.Module):
    """Classes [B] -> what `network` makes of their indicator vectors [B, classes]."""

    classes: int
    network: nn.Module

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return self.network(jax.nn.one_hot(x, self.classes))


class ClassEmbed(nn.Module):
    """Classes [B] -> one token each, [B, 1, width]."""

    classes: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return TokenEmbed(self.classes, self.width, self.dtype)(x[:, None])


class ClassHead(nn.Module):
    """[B, 1, width] -> logits [B, classes]."""

    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        return TokenHead(self.classes, self.dtype)(tokens)[:, 0]
