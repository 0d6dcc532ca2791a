"""Where examples come from and how they become batches."""

from mmgen_jax.data.builders.digits import Digits
from mmgen_jax.data.builders.polydigits import PolyDigits
from mmgen_jax.data.builders.stacked import StackedDigits
from mmgen_jax.data.builders.streets import Streets
from mmgen_jax.data.catalogue import Tfds, prepared
from mmgen_jax.data.loader import batches, encode, load, order, stream
from mmgen_jax.data.source import Arrays, Binarized, Missing, Paired
from mmgen_jax.data.square import Square

__all__ = [
    "Arrays",
    "Binarized",
    "Digits",
    "Missing",
    "Paired",
    "PolyDigits",
    "Square",
    "StackedDigits",
    "Streets",
    "Tfds",
    "batches",
    "encode",
    "load",
    "order",
    "prepared",
    "stream",
]
