"""Plain numbers: float32 [dim]; poses, measurements, embeddings, points."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities import pictures
from mmgen_jax.modalities.common import Direct, check_binary, check_counts, check_parts, check_shape, headed
from mmgen_jax.modalities.likelihoods import Categorical, Normal
from mmgen_jax.nn.mlp import MLP
from mmgen_jax.types import Array, Likelihood, Rendering


@dataclasses.dataclass(frozen=True)
class Vector(Direct):
    """`Vector(6)`: `dim` real numbers in no spatial order. Bring them to about unit variance first.

    likelihood: Normal, Laplace, or Bernoulli for bits.
    encoder, decoder: your own linen modules ([B, dim] -> [B, F]; [B, Z] -> [B, *likelihood.out_shape(shape)]).
    features: width of the two hidden layers of the default networks.
    """

    dim: int
    _: dataclasses.KW_ONLY
    likelihood: Likelihood = Normal(1.0)
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    features: int = 256

    def __post_init__(self) -> None:
        check_counts(self, "dim", "features")
        check_parts(self, unfit=(Categorical,))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def encoder_network(self, outputs: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, dim] -> [B, outputs]."""
        if self.encoder is not None:
            return headed(self.encoder, outputs, dtype)
        return MLP(outputs, (self.features, self.features), dtype=dtype)

    def decoder_network(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> [B, *out_shape] of the likelihood."""
        if self.decoder is not None:
            return self.decoder
        return MLP(*self.likelihood.out_shape(self.shape), (self.features, self.features), dtype=dtype)

    def tokens_in(self, width: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, dim] -> [B, 1, width]."""
        return VectorEmbed(width, dtype)

    def tokens_out(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, 1, width] -> [B, *out_shape] of the likelihood."""
        return VectorHead(*self.likelihood.out_shape(self.shape), dtype)

    def positions(self) -> np.ndarray:
        """[[0]]: a single token."""
        return np.zeros((1, 1), np.float32)

    def token_of(self) -> np.ndarray:
        """0, the single token, for each value: int32 [*shape]."""
        return np.zeros(self.shape, np.int32)

    def encode(self, raw: Any) -> np.ndarray:
        """Numbers as [dim] float32. Raises ValueError for a wrong length, NaN, infinity, or what is no number."""
        x = np.asarray(raw)
        if not (jnp.issubdtype(x.dtype, jnp.number) or x.dtype == bool) or jnp.iscomplexobj(x):
            raise ValueError(f"Vector: values must be real numbers, not {x.dtype}.")
        x = check_shape(self, x).astype(np.float32)
        if not np.isfinite(x).all():
            raise ValueError("Vector: values must be finite, but some are NaN or infinite.")
        return check_binary(self, x)

    def decode(self, x: Any) -> np.ndarray:
        """[dim] float32."""
        return check_shape(self, x).astype(np.float32)

    def render(self, x: Any) -> Rendering:
        """A PNG of one bar a value, up or down from the zero line, the largest as high as half the picture."""
        from PIL import Image, ImageDraw

        values = np.nan_to_num(self.decode(x))
        heights = np.round(48 * values / max(np.abs(values).max(), 1e-30))
        picture = Image.new("L", (8 * self.dim + 8, 104), "white")
        draw = ImageDraw.Draw(picture)
        for i, height in enumerate(heights):
            draw.rectangle((8 * i + 5, 51 - max(height, 0), 8 * i + 10, 51 - min(height, 0)), fill="black")
        return Rendering("png", pictures.png(picture))


class VectorEmbed(nn.Module):
    """[B, dim] -> one token, [B, 1, width]."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.width, dtype=self.dtype)(x)[:, None]


class VectorHead(nn.Module):
    """[B, 1, width] -> [B, outputs]."""

    outputs: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        return nn.Dense(self.outputs, dtype=self.dtype)(tokens)[:, 0]
