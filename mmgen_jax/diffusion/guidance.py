"""Guidance: a sharper answer than the network's own, from several answers of the same network.

With u(S) the output (a velocity, or the logits of symbols) where only the modalities S are seen and all others are at
t = 1 with noise, which is the network's own marginal, so no null token is learned or needed:

    u = sum_b w_b u(S_b),    sum_b w_b = 1                                                                          (1)

    condition C, scale s     u = u(none) + s (u(C) - u(none))           Ho and Salimans 2022, arXiv:2207.12598      (2)
    several conditions       u = u(none) + sum_k s_k (u(C_k) - u(none))           4M, Mizrahi et al. 2023           (3)
    nothing given            u_m = u_m(m alone) + s (u_m(all) - u_m(m alone))     UniDiffuser, Bao et al. 2023      (4)
    a weaker network v       u = v(C) + s (u(C) - v(C))                 Karras et al. 2024, arXiv:2406.02507        (5)

What is being made is always seen, except in (4). Each of these is a list of branches; all are computed in one call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Branch:
    """An answer that sees, of what is being made and of what is given, only these; and its weight w_b by output."""

    made: frozenset[str]
    given: frozenset[str]
    weights: FrozenDict[str, float]


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How strongly what is given, or what else is made, shapes what is made.

    Attributes:
        scale: s of (2), (4) and (5); 1 for none.
        scales: s_k of (3) by the name of what is given; then `scale` is not used for conditions.
        interval: guidance only at times t in it (Kynkaanniemi et al. 2024, arXiv:2404.07724).
        rescale: share in which the result is brought to the spread of the unguided answer, 0 to 1 (Lin et al. 2023,
            arXiv:2305.08891).

    Raises:
        ValueError: a field is outside its range.
    """

    scale: float = 1.0
    scales: Mapping[str, float] = FrozenDict()
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", FrozenDict(self.scales))
        for name, value in {"scale": self.scale, **{f"scales[{k!r}]": v for k, v in self.scales.items()}}.items():
            if not value >= 0:
                raise ValueError(f"{name} is {value}, but must be at least 0")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval is {self.interval}, but must rise within 0 and 1")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale is {self.rescale}, but must be from 0 to 1")

    def branches(self, wanted: tuple[str, ...], given: frozenset[str]) -> tuple[Branch, ...]:
        """The answers of (2), (3) or (4); the first is the unguided one, which sees all.

        Raises ValueError if a name of `scales` is not given.
        """
        if strange := sorted(set(self.scales) - given):
            raise ValueError(f"scales names {strange}, but what is given is {sorted(given)}")
        made, nothing = frozenset(wanted), frozenset()

        def branch(given: frozenset[str], weight: float) -> Branch:
            return Branch(made, given, FrozenDict(dict.fromkeys(wanted, weight)))

        if self.scales:
            each = [branch(frozenset({name}), scale) for name, scale in sorted(self.scales.items())]
            return (branch(given, 0.0), branch(nothing, 1.0 - sum(self.scales.values())), *each)
        if self.scale == 1 or (not given and len(wanted) < 2):
            return (branch(given, 1.0),)
        if given:
            return (branch(given, self.scale), branch(nothing, 1.0 - self.scale))
        alone = [Branch(frozenset({name}), nothing, FrozenDict({name: 1.0 - self.scale})) for name in wanted]
        return (branch(nothing, self.scale), *alone)

    def combined(self, branches: tuple[Branch, ...], name: str, outputs: Array, t: Array) -> Array:
        """Equation (1) of the outputs [branches, B, *out] for a modality at time t (a scalar): [B, *out]."""
        weights = jnp.array([branch.weights.get(name, 0.0) for branch in branches], outputs.dtype)
        return self.within(outputs[0], jnp.tensordot(weights, outputs, axes=1), t)

    def within(self, plain: Array, guided: Array, t: Array) -> Array:
        """The guided answer, rescaled, inside the interval; the plain one outside."""
        if self.rescale:
            axes = tuple(range(1, plain.ndim))
            spread = jnp.std(plain, axes, keepdims=True) / jnp.maximum(jnp.std(guided, axes, keepdims=True), 1e-8)
            guided = guided * (self.rescale * spread + 1 - self.rescale)
        low, high = self.interval
        return jnp.where((t >= low) & (t <= high), guided, plain)

    def away_from(self, weak: Array, own: Array, t: Array) -> Array:
        """Equation (5) of two outputs [B, *out]."""
        return self.within(own, weak + self.scale * (own - weak), t)
