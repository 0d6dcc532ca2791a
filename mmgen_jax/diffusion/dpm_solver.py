"""DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), which integrates the estimate of the data over ln(alpha / sigma).

With q = e^-h and the first and second differences D1, D2 of the estimates x of this and earlier steps:

    x_s = (sigma' / sigma) x_t + alpha' ((1 - q) x + w1 D1 + w2 D2)                                  (1)
    x_s = (sigma' / sigma) q x_t + alpha' ((1 - q^2) x + w1 D1) + sigma' sqrt(1 - q^2) z             (2)
    order 2   D1 = d0 = (x - x_1) / r0,  r0 = (lambda - lambda_1) / h,  w2 = 0
    order 3   D2 = (d0 - d1) / (r0 + r1),  D1 = d0 + r0 D2,  d1 and r1 as d0 and r0, one step earlier
              w1 = 1 - (1 - q) / h,  w2 = 1/2 - (h - 1 + q) / h^2

Written so that nothing is infinite from pure noise (alpha = 0) or to pure data (sigma' = 0).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.paths import Coefficients, Path, Tree, along
from mmgen_jax.diffusion.samplers import Memory, Moved, Predict, Sampler, fading, ratio
from mmgen_jax.diffusion.schedules import require_one_of
from mmgen_jax.types import Array


@flax.struct.dataclass
class History:
    """Of one leaf: its last two estimates of the data, and where in ln(alpha / sigma); -inf before there are any."""

    data: tuple[Array, Array]
    log_snr: tuple[Array, Array]

    def known(self, now: Array) -> tuple[Array, Array]:
        """Whether slopes can be made of the last one, and of both."""
        last, before = self.log_snr
        one = jnp.isfinite(now) & jnp.isfinite(last) & (now > last)
        return one, one & jnp.isfinite(before) & (last > before)

    def slopes(self, data: Array, now: Array, h: Array) -> tuple[Array, Array, Array, Array]:
        """d0, d1, r0, r1 of order 3; differences are 0 where unknown."""
        one, both = self.known(now)
        r0 = jnp.where(one, (now - self.log_snr[0]) / h, 1)
        r1 = jnp.where(both, (self.log_snr[0] - self.log_snr[1]) / h, 1)
        first = jnp.where(one, (data - self.data[0]) / r0, 0)
        return first, jnp.where(both, (self.data[0] - self.data[1]) / r1, 0), r0, r1

    def add(self, data: Array, now: Array) -> History:
        """One more estimate, the oldest forgotten."""
        return History((data, self.data[0]), (jnp.broadcast_to(now, data.shape), self.log_snr[0]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolver(Sampler):
    """Equations (1) and (2), multistep: the first steps, and the last to sigma = 0, are of lower order by themselves.

    order: 1 to 3; of the stochastic solver 1 or 2. Every order has the same memory, so it may change between steps.
    sde: equation (2) instead of (1).
    kind: how order 2 integrates, "midpoint" (w1 = (1 - q) / 2) or "heun" (w1 = 1 - (1 - q) / h); q^2, 2h for (2).
    """

    order: int = 2
    sde: bool = False
    kind: Literal["midpoint", "heun"] = "midpoint"

    def __post_init__(self) -> None:
        require_one_of("DPMSolver", "kind", self.kind, ("midpoint", "heun"))
        if not 1 <= self.order <= (most := 2 if self.sde else 3):
            raise ValueError(f"DPMSolver: order is {self.order}, but with sde={self.sde} must be between 1 and {most}")

    def start(self, x: Tree) -> Memory:
        """Nothing known."""
        return jax.tree.map(lambda x: History((jnp.zeros_like(x),) * 2, (jnp.full_like(x, -jnp.inf),) * 2), x)

    def move(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, noise: Tree) -> Moved:
        """One evaluation."""
        a, b = along(path, t), along(path, s)
        both, aux = predict(x, t)
        x = jax.tree.map(self._leap, x, both.data, a, b, memory, noise)
        return x, jax.tree.map(lambda d, a, m: m.add(d, a.log_snr), both.data, a, memory), aux

    def _leap(self, x: Array, data: Array, a: Coefficients, b: Coefficients, history: History, z: Array) -> Array:
        q, shrunk = fading(a, b), ratio(b.sigma, a.sigma)
        correction = self._correction(data, a, b, history) if self.order > 1 else 0
        if self.sde:
            fresh = 1 - q**2
            return shrunk * q * x + b.alpha * (fresh * data + correction) + b.sigma * jnp.sqrt(fresh) * z
        return shrunk * x + b.alpha * ((1 - q) * data + correction)

    def _correction(self, data: Array, a: Coefficients, b: Coefficients, history: History) -> Array:
        """w1 D1 + w2 D2; zero where nothing is known, and in the step to sigma = 0, in which h is infinite."""
        h = b.log_snr - a.log_snr
        finite = jnp.isfinite(h) & (h > 0)
        h = jnp.where(finite, h, 1)
        span = 2 * h if self.sde else h
        fresh = -jnp.expm1(-span)  # 1 - q or 1 - q^2, of the same h: their difference keeps its digits
        heun = 1 - fresh / span
        first, before, r0, r1 = history.slopes(data, a.log_snr, h)
        second = (fresh / 2 if self.kind == "midpoint" else heun) * first
        curve = (first - before) / (r0 + r1)
        third = heun * (first + r0 * curve) + (0.5 - (h - fresh) / h**2) * curve
        best = jnp.where(history.known(a.log_snr)[1], third, second) if self.order == 3 else second
        return jnp.where(finite, best, 0)
