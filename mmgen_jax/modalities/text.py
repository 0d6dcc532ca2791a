"""Texts: int32 [length], one id a token, then the end token, then padding.

    log p(x | z) = sum_i log p(x_i | x_<i, z) over the tokens up to and with the end            (1)

Padding follows from the end, so it is certain and adds nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities.common import check_counts, check_parts, check_shape, headed
from mmgen_jax.modalities.likelihoods import Categorical
from mmgen_jax.modalities.tokenizers import FIRST_ID, Characters, Tokenizer
from mmgen_jax.nn.embed import TokenEmbed, TokenHead
from mmgen_jax.nn.transformer import END, PADDING, TextDecoder, TextEncoder
from mmgen_jax.types import Array, Key, Rendering


@dataclasses.dataclass(frozen=True)
class Text:
    """`Text(length=64)`: strings of up to 63 tokens, and their end.

    vocabulary: how a string is cut into tokens; `Characters()`, `Bytes()` or your own `Tokenizer`.
    encoder: your own linen module, tokens [B, L] -> [B, F].
    decoder: your own, with `__call__(z [B, Z], tokens [B, L]) -> logits [B, L, ids]`, where logits at i depend on z and
        tokens before i only, and `generate(z, key | None) -> tokens [B, L]`.
    features, layers: width and depth of the default transformers.
    """

    length: int
    _: dataclasses.KW_ONLY
    vocabulary: Tokenizer = Characters()
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    features: int = 64
    layers: int = 1

    standard = (0.0, 1.0)
    axes = ("index",)

    def __post_init__(self) -> None:
        check_counts(self, "length", "features", "layers")
        if isinstance(self.vocabulary, type | str) or not hasattr(self.vocabulary, "encode"):
            raise ValueError(f"Text: vocabulary must be a tokenizer such as Characters(), not {self.vocabulary!r}.")
        check_parts(self)

    @property
    def ids(self) -> int:
        """The number of different ids: the vocabulary's, padding and end."""
        return self.vocabulary.size + FIRST_ID

    @property
    def likelihood(self) -> Categorical:
        return Categorical(self.ids, ignore=PADDING)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def encoder_network(self, outputs: int, dtype: Any = jnp.float32) -> nn.Module:
        """Tokens [B, L] -> [B, outputs]."""
        if self.encoder is not None:
            return headed(self.encoder, outputs, dtype)
        return TextEncoder(self.ids, outputs, self.features, self.layers, dtype=dtype)

    def decoder_network(self, dtype: Any = jnp.float32) -> nn.Module:
        """z [B, Z], tokens [B, L] -> logits [B, L, ids], each from the tokens before it."""
        if self.decoder is not None:
            return self.decoder
        return TextDecoder(self.ids, self.length, self.features, self.layers, dtype=dtype)

    def log_prob(self, decode: Any, z: Array, x: Array) -> Array:
        """Equation (1), [B], of x [B, L]."""
        return self.likelihood.log_prob(decode(z, x), x)

    def generate(self, decode: Any, z: Array, key: Key | None) -> Array:
        """[B, L]: a sample, token by token; without a key the most probable token each time."""
        return decode(z, key, method="generate")

    def tokens_in(self, width: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, L] -> [B, L, width]."""
        return TokenEmbed(self.ids, width, dtype)

    def tokens_out(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, L, width] -> logits [B, L, ids]."""
        return TokenHead(self.ids, dtype)

    def positions(self) -> np.ndarray:
        """The index of each token, [L, 1] float32."""
        return np.arange(self.length, dtype=np.float32)[:, None]

    def token_of(self) -> np.ndarray:
        """Each id is a token, int32 [L]."""
        return np.arange(self.length, dtype=np.int32)

    def encode(self, raw: str | bytes) -> np.ndarray:
        """A string (bytes: UTF-8) as [length] int32.

        Raises:
            ValueError: no string, too long, or with something the vocabulary does not have.
        """
        if isinstance(raw, bytes):
            raw = raw.decode()
        if not isinstance(raw, str):
            raise ValueError(f"Text: a text must be a str or bytes, not {type(raw).__name__}.")
        ids = [*self.vocabulary.encode(raw), END]
        if len(ids) > self.length:
            raise ValueError(
                f"Text: {raw!r} has {len(ids) - 1} tokens, but length={self.length} leaves room for {self.length - 1}."
            )
        return np.pad(np.array(ids, np.int32), (0, self.length - len(ids)), constant_values=PADDING)

    def decode(self, x: Any) -> str:
        """[length] ids -> the string before the first end or padding. Raises ValueError for an unknown id."""
        x = check_shape(self, x)
        if x.min() < 0 or x.max() >= self.ids:
            raise ValueError(f"Text: ids must be from 0 to {self.ids - 1}, but these run from {x.min()} to {x.max()}.")
        # argmin finds the first False; a text whose end was never drawn has none and is taken whole.
        own = np.append(x >= FIRST_ID, False)
        return self.vocabulary.decode(x[: own.argmin()].tolist())

    def render(self, x: Any) -> Rendering:
        """A UTF-8 text file."""
        return Rendering("txt", self.decode(x).encode())
