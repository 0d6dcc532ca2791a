"""Which noise level each modality has in training: what makes one network a joint, a marginal and a conditional model.

Every modality m has a time t_m in [0, 1] of its own, 0 = clean and 1 = nothing but noise. Each example follows one of
three rules, drawn with the probabilities `independent`, `shared` and `conditioned`:

    independent    t_m ~ density, each by itself (UniDiffuser, Bao et al. 2023, arXiv:2303.06555)                  (1)
    shared         t_m = tau for all m, tau ~ density: joint generation                                            (2)
    conditioned    t_m = tau for m in T; for all others t_m = 0 with probability `clean`, else 1                   (3)

T of (3) is a random set with at least one modality that the example has. A modality that the example does not have is
at t_m = 1 in every rule: what stands in its place is noise, so nothing of it can be seen and attention needs no mask.
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
    """Rules (1) to (3).

    Attributes:
        independent, shared: probabilities of rules (1) and (2); what is left to one is that of rule (3).
        clean: probability that a modality outside T is given clean, and not as noise.
        density: of one time.

    Raises:
        ValueError: a probability is outside [0, 1], or the first two exceed one together.
    """

    independent: float = 0.4
    shared: float = 0.2
    clean: float = 0.75
    density: Density = LogitNormal()

    def __post_init__(self) -> None:
        for field in ("independent", "shared", "clean"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ValueError(f"{field} is {value}, but must be from 0 to 1")
        if self.independent + self.shared > 1:
            raise ValueError(f"independent + shared is {self.independent + self.shared}, but must be at most 1")

    def draw(self, key: Key, present: Mapping[str, Array]) -> dict[str, Array]:
        """A time [B] for each modality of `present` (bool [B] each); the order of the names changes nothing."""
        names = sorted(present)
        there = jnp.stack([present[name] for name in names])
        keys = [fold_name(key, f"time/{name}") for name in names]
        count = there.shape[1:]
        own = jnp.stack([self.density.sample(key, count, jnp.float32) for key in keys])
        tau = jnp.broadcast_to(self.density.sample(fold_name(key, "tau"), count, jnp.float32), own.shape)
        made = jnp.stack([jax.random.bernoulli(fold_name(key, "made"), shape=count) for key in keys])
        made |= jax.nn.one_hot(first_of(keys, there), len(names), axis=0, dtype=bool)
        rest = jnp.stack([1.0 - jax.random.bernoulli(fold_name(key, "clean"), self.clean, count) for key in keys])
        rule = jnp.broadcast_to(jax.random.uniform(fold_name(key, "rule"), count), own.shape)
        times = jnp.where(made, tau, rest)
        times = jnp.where(rule < self.independent + self.shared, tau, times)
        times = jnp.where(rule < self.independent, own, times)
        return dict(zip(names, jnp.where(there, times, 1.0), strict=True))


def first_of(keys: list[Key], there: Array) -> Array:
    """The index [B] of a random modality among those that are there [M, B]."""
    score = jnp.stack([jax.random.uniform(fold_name(key, "first"), there.shape[1:]) for key in keys])
    return jnp.argmax(jnp.where(there, score, -1.0), axis=0)
