"""What the modalities share: how one is scored, generated and given networks, and the checks of what a user hands over.

`Direct` and `Grid` are mix-ins of final methods. Nothing here is overridden by the modalities.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities.likelihoods import Bernoulli
from mmgen_jax.nn.conv import ConvDecoder, ConvEncoder
from mmgen_jax.nn.embed import PatchEmbed, PatchHead, patch_of, patch_positions
from mmgen_jax.nn.grid import GridEncoder
from mmgen_jax.nn.towers import Towers
from mmgen_jax.types import Array, Key, Likelihood


class Direct:
    """A modality whose decoder gives the parameters of the likelihood of all values in one call."""

    likelihood: Likelihood
    standard = (0.0, 1.0)
    axes = ("index",)

    def log_prob(self, decode: Any, z: Array, x: Array) -> Array:
        """log p(x | z), [B], of x [B, *shape] under `decode(z)`."""
        return self.likelihood.log_prob(decode(z), x)

    def generate(self, decode: Any, z: Array, key: Key | None) -> Array:
        """[B, *shape]: a sample of p(x | z), or without a key its mean."""
        out = decode(z)
        return self.likelihood.mean(out) if key is None else self.likelihood.sample(out, key)


class Grid(Direct):
    """A modality whose values lie on a regular grid (`shape` = space and channels), cut into patches for tokens."""

    shape: tuple[int, ...]
    patches: tuple[int, ...]  # cells of one patch along each axis of space
    spacing: tuple[float, ...]  # between cells along each axis, in pixels or seconds
    encoder: nn.Module | None
    decoder: nn.Module | None
    features: int
    fold: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def encoder_network(self, outputs: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        if self.encoder is not None:
            return headed(self.encoder, outputs, dtype)
        return ConvEncoder(outputs, self.features, self._folds, dtype)

    def decoder_network(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] -> [B, *out_shape] of the likelihood."""
        if self.decoder is not None:
            return self.decoder
        return ConvDecoder(self.likelihood.out_shape(self.shape), self.features, self._folds, dtype)

    @property
    def _folds(self) -> tuple[int, ...]:
        return (self.fold,) * (len(self.shape) - 1)

    def tokens_in(self, width: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, T, width]."""
        return PatchEmbed(self.patches, width, dtype)

    def tokens_out(self, dtype: Any = jnp.float32) -> nn.Module:
        """[B, T, width] -> [B, *out_shape] of the likelihood."""
        return PatchHead(self.patches, self.likelihood.out_shape(self.shape), dtype)

    def positions(self) -> np.ndarray:
        """The centres of the T patches, [T, axes of space] float32, in the units of `spacing`."""
        return patch_positions(self.shape[:-1], self.patches, self.spacing)

    def token_of(self) -> np.ndarray:
        """The patch that each value is in, int32 [*shape]."""
        return np.broadcast_to(patch_of(self.shape[:-1], self.patches)[..., None], self.shape)


def headed(encoder: nn.Module, outputs: int, dtype: Any) -> nn.Module:
    """A user's own encoder with what makes `outputs` of its features. Towers and grids bring that with them."""
    if isinstance(encoder, Towers | GridEncoder):
        return encoder.clone(outputs=outputs, dtype=dtype)
    return Headed(encoder, outputs, dtype)


class Headed(nn.Module):
    """A user's own encoder, [B, *shape] -> [B, F], followed by the linear layer to the outputs the family needs."""

    encoder: nn.Module
    outputs: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.outputs, dtype=self.dtype)(self.encoder(x))


def check_counts(modality: Any, *fields: str) -> None:
    """Raises ValueError unless each of the fields is a whole number above 0."""
    for field in fields:
        value = getattr(modality, field)
        if type(value) is not int or value < 1:
            raise ValueError(f"{type(modality).__name__}: {field} must be a whole number of at least 1, not {value!r}.")


def check_parts(modality: Any, unfit: tuple[type, ...] = ()) -> None:
    """Raises ValueError unless the networks are linen modules and the likelihood is one, of no type in `unfit`."""
    name = type(modality).__name__
    for field in ("encoder", "decoder"):
        value = getattr(modality, field)
        if value is not None and not isinstance(value, nn.Module):
            raise ValueError(f"{name}: {field} must be an instance of a flax.linen module or None, not {value!r}.")
    likelihood = modality.likelihood
    if isinstance(likelihood, type) or not hasattr(likelihood, "log_prob"):
        raise ValueError(f"{name}: likelihood must be an instance such as Normal(), not {likelihood!r}.")
    if isinstance(likelihood, unfit):
        raise ValueError(f"{name}: likelihood {likelihood!r} cannot score the values of this modality.")


def check_rate(modality: Any, field: str) -> None:
    """Raises ValueError unless the field is a finite number above 0."""
    value = getattr(modality, field)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"{type(modality).__name__}: {field} must be a number above 0, not {value!r}.")


def check_shape(modality: Any, x: Any) -> np.ndarray:
    """x as a numpy array. Raises ValueError unless it has the shape of one example."""
    x = np.asarray(x)
    if x.shape != modality.shape:
        raise ValueError(
            f"{type(modality).__name__}: one example has shape {modality.shape}, but the array has {x.shape}."
        )
    return x


def unit_interval(modality: Any, x: np.ndarray) -> np.ndarray:
    """Pixels as float32 in [0, 1], from uint8, bool, or floats in [0, 1].

    Raises ValueError for other types and values, and for grey values under a Bernoulli likelihood.
    """
    name = type(modality).__name__
    if x.dtype == np.uint8:
        return check_binary(modality, np.divide(x, 255, dtype=np.float32))
    if x.dtype != bool and not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: pixels must be uint8 or floats in [0, 1], not {x.dtype}.")
    x = x.astype(np.float32)
    if not (x.min() >= 0 and x.max() <= 1):  # false for NaN too
        raise ValueError(f"{name}: floats must be in [0, 1], but these run from {x.min():.4g} to {x.max():.4g}.")
    return check_binary(modality, x)


def check_binary(modality: Any, x: np.ndarray) -> np.ndarray:
    """x. Raises ValueError if the likelihood is Bernoulli and not every value is 0 or 1."""
    if isinstance(modality.likelihood, Bernoulli) and not ((x == 0) | (x == 1)).all():
        raise ValueError(f"{type(modality).__name__}: the Bernoulli likelihood needs values of 0 or 1 only.")
    return x


def as_bytes(x: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] as uint8. What a network makes may lie outside (clipped) or be NaN (shown black)."""
    return np.round(np.clip(np.nan_to_num(np.asarray(x, np.float32)), 0, 1) * 255).astype(np.uint8)
