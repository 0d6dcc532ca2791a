"""Where examples come from and how they become batches."""

from mmgen_jax.data.builders.digits import Digits
from mmgen_jax.data.catalogue import Tfds
from mmgen_jax.data.loader import batches, encode, load, order, stream
from mmgen_jax.data.source import Arrays, Missing, Paired

__all__ = ["Arrays", "Digits", "Missing", "Paired", "Tfds", "batches", "encode", "load", "order", "stream"]
