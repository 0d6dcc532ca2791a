"""Keys by name and step.

No key is ever stored: every random number follows from the experiment's seed, the name of what it is for and the step,
so that a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import zlib

import jax

from mmgen_jax.types import Array, Key


def fold_name(key: Key, name: str) -> Key:
    """A key of its own for `name`. crc32 rather than hash(): the same on every host and in every process."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(seed: int, name: str, step: int | Array) -> Key:
    """The key of stream `name` at `step` of the experiment with `seed`; works under jit with a traced step."""
    return jax.random.fold_in(fold_name(jax.random.key(seed), name), step)
