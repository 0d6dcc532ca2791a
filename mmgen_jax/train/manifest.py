"""What a checkpoint must hold: the name, dtype, shape and two checksums of every array of a state.

    c_j(x) = sum_i  w_j(i) word_i(x)  mod 2^32,      w_j(i) odd,  j = 1, 2                                    (1)

over the bits of x read as unsigned words. Changing bit b of any one word changes the sum by 2^b times an odd number,
which is never 0 mod 2^32. Integer sums do not depend on their order, so the same number comes out of any number of
devices and processes, without gathering anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.types import Array, TrainState


def checksum(x: Array) -> Array:
    """Equation (1): the two checksums of an array of any shape and dtype of 8 to 64 bits, as uint32[2]."""
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    bits = 8 * min(x.dtype.itemsize, 4)  # a 64-bit number is read as two words along a new last axis
    words = jax.lax.bitcast_convert_type(x, f"uint{bits}").astype(jnp.uint32)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):  # row-major position, without reshaping what may be sharded
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mixed = index * np.uint32(0x9E3779B1)
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(0x85EBCA77)
    return jnp.stack([jnp.sum(words * (weight | 1), dtype=jnp.uint32) for weight in (2 * index, mixed)])


_checksums = jax.jit(lambda leaves: jnp.stack([checksum(x) for x in leaves]))


def manifest(state: TrainState) -> dict[str, list]:
    """`{name: [dtype, shape, c_1, c_2]}` of every array of the state, computed where the arrays are."""
    names = layout(state)
    sums = np.asarray(_checksums(jax.tree.leaves(state))).tolist()
    return {name: [*kind, *pair] for (name, kind), pair in zip(names.items(), sums, strict=True)}


def layout(state: TrainState) -> dict[str, list]:
    """`{name: [dtype, shape]}` of every array, or `jax.ShapeDtypeStruct`, of the state."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): [str(x.dtype), list(x.shape)] for path, x in leaves}


def check_layout(place: object, saved: Mapping[str, list], like: TrainState) -> None:
    """Raise ValueError where names, dtypes or shapes of the manifest of `place` differ from those of `like`.

    Orbax itself would cast dtypes without a word. With `like.opt` None the optimiser's state is not compared.
    """
    expected = layout(like)
    found = {name: entry[:2] for name, entry in saved.items() if like.opt is not None or not name.startswith("opt/")}
    for name in sorted(expected.keys() | found.keys()):
        here, there = expected.get(name, "nothing"), found.get(name, "nothing")
        if here != there:
            raise ValueError(f"{place} is of a different model: {name} is {there} there and {here} here")
