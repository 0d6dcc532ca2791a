"""Codes in units of their own: every dimension with mean 0 and variance 1.

    x = (z - mean) / std,    log p(z) = log p(x) - sum_d log std_d      (1)

Hyper-parameters of a prior, from learning rates to the least variance, then mean the same for any codes.
"""

from __future__ import annotations

import jax.numpy as jnp

from mmgen_jax.types import Array, Params

LEAST = 1e-6  # of a standard deviation: a dimension that never changes must not be divided by zero


def standardised(codes: Array) -> tuple[Params, Array]:
    """The scale of the codes [N, D], and the codes in it, float32.

    Raises:
      ValueError: the codes have another rank, or there are none.
    """
    codes = jnp.asarray(codes, jnp.float32)
    if codes.ndim != 2 or codes.size == 0:
        raise ValueError(f"codes have shape {codes.shape}, but must be [N, D] with at least one code and dimension")
    scale = {"mean": codes.mean(0), "std": jnp.maximum(codes.std(0), LEAST)}
    return scale, to_scale(scale, codes)


def to_scale(scale: Params, z: Array) -> Array:
    """Codes z [..., D] to x of equation (1)."""
    return (z - jnp.broadcast_to(scale["mean"], z.shape)) / jnp.broadcast_to(scale["std"], z.shape)


def from_scale(scale: Params, x: Array) -> Array:
    """The inverse of `to_scale`."""
    return x * jnp.broadcast_to(scale["std"], x.shape) + jnp.broadcast_to(scale["mean"], x.shape)


def log_volume(scale: Params) -> Array:
    """sum_d log std_d, what (1) takes from the log density."""
    return jnp.log(scale["std"]).sum()
