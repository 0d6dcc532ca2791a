"""Finite scalar quantisation: every channel is bounded and rounded, and the codes are all combinations.

For a channel with L levels (Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and appendix A):

    h = (L - 1) (1 + 1e-3) / 2,   o = 1/2 if L is even else 0,   s = atanh(o / h)
    q = round(h tanh(z + s) - o),   code = q / floor(L / 2)                                                       (1)
    symmetric:   q = floor((L - 1) (tanh z + 1) / 2 + 1/2),   code = 2 q / (L - 1) - 1                            (2)
    number of a code = sum_i d_i prod_{j < i} L_j,   d = q + floor(L / 2), or q in (2)                            (3)

Nothing but the networks around it is learned, no code can die, and there is no further loss. About 2^8 codes:
(8, 6, 5), 2^10: (8, 5, 5, 5), 2^12: (7, 5, 5, 5, 5), 2^14: (8, 8, 8, 6, 5), 2^16: (8, 8, 8, 5, 5, 5).
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from mmgen_jax.tokens.quantizer import Quantized, straight_through
from mmgen_jax.types import Array, Key, Params, Stats


@dataclasses.dataclass(frozen=True)
class FSQ:
    """A `Quantizer` of vectors with one channel for each of `levels`.

    symmetric: (2) in place of (1): for even numbers of levels too, the codes of z and -z are opposite.

    Raises:
        ValueError: no levels, or one below 2.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)
    symmetric: bool = False

    def __post_init__(self) -> None:
        if (
            not isinstance(self.levels, tuple)
            or not self.levels
            or any(type(n) is not int or n < 2 for n in self.levels)
        ):
            raise ValueError(f"FSQ: levels must be a tuple of whole numbers of at least 2, not {self.levels!r}")

    @property
    def width(self) -> int:
        return len(self.levels)

    @property
    def size(self) -> int:
        return math.prod(self.levels)

    @property
    def symbols(self) -> int:
        return 1

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Nothing is learned."""
        return {}, {}

    def __call__(self, params: Params, stats: Stats, z: Array) -> Quantized:
        """z [..., width]; the error is 0."""
        bounded = self._bounded(z)
        steps = jnp.floor(bounded + 0.5) if self.symmetric else jnp.round(bounded)
        digits = (steps + self._constant(self._lowest, z)).astype(jnp.int32)
        indices = jnp.sum(digits * self._constant(self._basis, digits), axis=-1, keepdims=True)
        return Quantized(self._scaled(straight_through(bounded, steps)), indices, jnp.zeros(z.shape[:-1], z.dtype))

    def codes(self, params: Params, stats: Stats, indices: Array) -> Array:
        """The codes [..., width] with these numbers [..., 1], by (3), in jax's default type of real numbers."""
        digits = indices // self._constant(self._basis, indices) % self._constant(self.levels, indices)
        steps = digits.astype(float) - self._constant(self._lowest, digits)
        return self._scaled(steps)

    def update(self, params: Params, stats: Stats, z: Array, indices: Array, used: Array, key: Key) -> Stats:
        return stats

    def settle(self, params: Params, stats: Stats) -> Params:
        return params

    def _bounded(self, z: Array) -> Array:
        levels = np.array(self.levels, float)
        if self.symmetric:
            return (jnp.tanh(z) + 1) * self._constant((levels - 1) / 2, z)
        half, offset = (levels - 1) * (1 + 1e-3) / 2, np.where(levels % 2, 0, 0.5)
        shift = self._constant(np.arctanh(offset / half), z)
        return jnp.tanh(z + shift) * self._constant(half, z) - self._constant(offset, z)

    def _scaled(self, steps: Array) -> Array:
        levels = np.array(self.levels)
        if self.symmetric:
            return steps * self._constant(2 / (levels - 1), steps) - 1
        return steps / self._constant(levels // 2, steps)

    @property
    def _lowest(self) -> np.ndarray:
        """How far the lowest step is below 0."""
        return np.array(self.levels) // 2 * (not self.symmetric)

    @property
    def _basis(self) -> np.ndarray:
        return np.cumprod([1, *self.levels[:-1]])

    @staticmethod
    def _constant(values: np.ndarray | tuple[int, ...], like: Array) -> Array:
        """One value a channel, [width] as [1, ..., 1, width] in the type of `like`."""
        return jnp.asarray(values, like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))
