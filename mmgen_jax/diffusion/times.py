"""Which noise level each modality has in training: what makes one network a joint, a marginal and a conditional model.

Every modality m has a time t_m in [0, 1] of its own, 0 = clean and 1 = nothing but noise. Each example follows one of
three rules, drawn with the probabilities `independent`, `shared` and `conditioned`:

    independent    t_m ~ density, each by itself (UniDiffuser, Bao et al. 2023, arXiv:2303.06555)                  (1)
    shared         t_m = tau for all m, tau ~ density: joint generation                                            (2)
    conditioned    t_m = tau for m in T; for all others t_m = 0 with probability `clean`, else 1                   (3)

T of (3) is a random set with at least one modality that the example has. A modality that the example does not have is
at t_m = 1 in every rule: what stands in its place is noise, so nothing of it can be seen and attention needs no mask.

With probability `tokens` a modality that is on its way, 0 < t_m < 1, has two noise levels. Each of its tokens is at

    t'_m with a probability ~ U(0, 1), else at t_m;   t'_m ~ density, under (3) t'_m = 0                            (4)

The former is the dual time step of Self-Flow (Chefer et al. 2026, arXiv:2603.06507), the latter what inpainting needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.weights import LogitNormal
from mmgen_jax.diffusion.weights import Times as Density
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Times:
    """Rules (1) to (4).

    Attributes:
        independent, shared: probabilities of rules (1) and (2); what is left to one is that of rule (3).
        clean: probability that a modality outside T is given clean, and not as noise.
        tokens: probability of (4); above 0 every token is told its own time, which costs more than one time for all.
        density: of one time.

    Raises:
        ValueError: a probability is outside [0, 1], or the first two exceed one together.
    """

    independent: float = 0.4
    shared: float = 0.2
    clean: float = 0.75
    tokens: float = 0.0
    density: Density = LogitNormal()

    def __post_init__(self) -> None:
        for field in ("independent", "shared", "clean", "tokens"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ValueError(f"{field} is {value}, but must be from 0 to 1")
        if self.independent + self.shared > 1:
            raise ValueError(f"independent + shared is {self.independent + self.shared}, but must be at most 1")

    def draw(self, key: Key, present: Mapping[str, Array], counts: Mapping[str, int]) -> dict[str, Array]:
        """A time [B] for each modality of `present` (bool [B] each), or times [B, T_m] of its tokens where they differ.

        counts: T_m. The order of the names changes nothing.
        """
        names = sorted(present)
        there = jnp.stack([present[name] for name in names])
        keys = [fold_name(key, f"time/{name}") for name in names]
        count = there.shape[1:]
        own = jnp.stack([self.density.sample(key, count, jnp.float32) for key in keys])
        tau = jnp.broadcast_to(self.density.sample(fold_name(key, "tau"), count, jnp.float32), own.shape)
        made = jnp.stack([jax.random.bernoulli(fold_name(key, "made"), shape=count) for key in keys])
        made |= jax.nn.one_hot(first_of(keys, there), len(names), axis=0, dtype=bool)
        rest = jnp.stack([1.0 - jax.random.bernoulli(fold_name(key, "clean"), self.clean, count) for key in keys])
        rule = jax.random.uniform(fold_name(key, "rule"), count)
        conditioned = rule >= self.independent + self.shared
        times = jnp.where(conditioned[None], jnp.where(made, tau, rest), tau)
        times = jnp.where(rule[None] < self.independent, own, times)
        times = dict(zip(names, jnp.where(there, times, 1.0), strict=True))
        if self.tokens == 0:
            return times
        return {
            name: self.split(fold_name(key, f"tokens/{name}"), t, conditioned, counts[name])
            for name, t in times.items()
        }

    def split(self, key: Key, t: Array, known: Array, count: int) -> Array:
        """Equation (4): the times [B, count] of the tokens of a modality at times t [B].

        known: bool [B], where the second time is 0.
        """
        second = jnp.where(known, 0.0, self.density.sample(fold_name(key, "second"), t.shape, jnp.float32))
        split = (t > 0) & (t < 1) & jax.random.bernoulli(fold_name(key, "split"), self.tokens, t.shape)
        share = jnp.where(split, jax.random.uniform(fold_name(key, "share"), t.shape), 0.0)
        which = jax.random.bernoulli(fold_name(key, "which"), share[:, None], (*t.shape, count))
        return jnp.where(which, second[:, None], t[:, None])


def first_of(keys: list[Key], there: Array) -> Array:
    """The index [B] of a random modality among those that are there [M, B]."""
    score = jnp.stack([jax.random.uniform(fold_name(key, "first"), there.shape[1:]) for key in keys])
    return jnp.argmax(jnp.where(there, score, -1.0), axis=0)
