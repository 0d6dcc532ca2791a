"""Where examples come from and how they become batches."""

from mmgen_jax.data.builders.digits import Digits
from mmgen_jax.data.loader import batches, encode, load, order

__all__ = ["Digits", "batches", "encode", "load", "order"]
