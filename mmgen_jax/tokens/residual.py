"""Residual quantisation: what a code leaves over is quantised again (Zeghidour et al. 2021, arXiv:2107.03312).

    r_1 = z,   e_s = the code of r_s in codebook s,   r_{s+1} = r_s - sg(e_s),   code = sum_s e_s,   s = 1 ... S     (1)

Gradients go straight through the sum, once. To let them through in every stage would give S times as much.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mmgen_jax.tokens.quantizer import Quantized, straight_through
from mmgen_jax.tokens.vq import VQ
from mmgen_jax.types import Array, Key, Params, Stats


@dataclasses.dataclass(frozen=True)
class Residual:
    """A `Quantizer` with a codebook of the kind `stage` for each of a number of stages: as many symbols a vector.

    Raises:
        ValueError: fewer than one stage, or vectors of length 1, whose rest has another length.
    """

    stage: VQ = VQ()
    stages: int = 4

    def __post_init__(self) -> None:
        if type(self.stages) is not int or self.stages < 1:
            raise ValueError(f"Residual: stages is {self.stages!r}, but must be a whole number of at least 1")
        if self.stage.cosine:
            raise ValueError(f"Residual: stage is {self.stage}, but must be without cosine")

    @property
    def width(self) -> int:
        return self.stage.width

    @property
    def size(self) -> int:
        return self.stage.size

    @property
    def symbols(self) -> int:
        return self.stages

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"stage_{s}" for s in range(self.stages))

    def init(self, key: Key) -> tuple[Params, Stats]:
        parts = zip(self._names, jax.random.split(key, self.stages), strict=True)
        both = {name: self.stage.init(key) for name, key in parts}
        return {name: params for name, (params, _) in both.items()}, {name: stats for name, (_, stats) in both.items()}

    def __call__(self, params: Params, stats: Stats, z: Array) -> Quantized:
        """z [..., width] by (1)."""
        rest, total, parts = z, jnp.zeros_like(z), []
        for name in self._names:
            part = self.stage(params[name], stats[name], rest)
            e = self.stage.codes(params[name], stats[name], part.indices)
            rest, total = rest - jax.lax.stop_gradient(e), total + e
            parts.append(part)
        indices = jnp.concatenate([part.indices for part in parts], axis=-1)
        return Quantized(straight_through(z, total), indices, sum(part.error for part in parts))

    def codes(self, params: Params, stats: Stats, indices: Array) -> Array:
        """The codes [..., width] with these numbers [..., stages]."""
        return sum(
            self.stage.codes(params[name], stats[name], indices[..., s : s + 1]) for s, name in enumerate(self._names)
        )

    def update(self, params: Params, stats: Stats, z: Array, indices: Array, used: Array, key: Key) -> Stats:
        new = {}
        for s, name in enumerate(self._names):
            own = indices[..., s : s + 1]
            fold = jax.random.fold_in(key, s)
            new[name] = self.stage.update(params[name], stats[name], z, own, used, fold)
            z = z - self.stage.codes(params[name], stats[name], own)
        return new

    def settle(self, params: Params, stats: Stats) -> Params:
        return {name: self.stage.settle(params[name], stats[name]) for name in self._names}
