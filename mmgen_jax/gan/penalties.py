"""What keeps a critic's slopes in bounds: penalties on |grad D|^2, n for short, at points p.

    R1        p = x                         g n / 2                 Mescheder et al. 2018, arXiv:1801.04406     (1)
    R2        p = y                         g n / 2                 the same                                    (2)
    WGANGP    p = u x + (1 - u) y           w (sqrt n - 1)^2        Gulrajani et al. 2017, arXiv:1704.00028     (3)
    ZeroGP    p = u x + (1 - u) y           w n                     Thanh-Tung et al. 2019, arXiv:1902.03984    (4)
    DRAGAN    p = x + c std(x) e            w (sqrt n - 1)^2        Kodali et al. 2017, arXiv:1705.07215        (5)
    MAGP      p = x                         w n^3                   Tao et al. 2020, arXiv:2008.05865           (6)

x is real, y made and constant, u uniform in [0, 1), e normal. An example may be a tree: n is the sum over all of it.
The gradient is taken in float32, whatever the critic computes in, and may be replaced by a finite difference,

    n ~ ((D(p + s e) - D(p)) / s)^2,    e ~ N(0, 1),                arXiv:2501.08316                            (7)

whose expectation is n up to O(s^2), at the price of one more forward pass and without a second derivative.

*Lazily* (Karras et al. 2020, arXiv:1912.04958, appendix B): a penalty with `every` k is taken at one of k updates, k
times as large. The optimiser then sees k + 1 gradients where it saw k, for which `train.players.lazily` makes up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.train.step import batch_mean
from mmgen_jax.types import Array, Key

Example = Any  # an array [B, ...] or a tree of them
# -> [B], each row of its own example; or {name: [B]}, the values of several critics: one named like a part of an
# example, which then is a dict, depends on that part alone.
Critic = Callable[[Example], Any]


class Penalty(Protocol):
    """A term of the critic's loss, like its values [B], taken every `every` updates."""

    every: int

    def __call__(self, critic: Critic, real: Example, fake: Example, key: Key) -> Any: ...


@flax.struct.dataclass
class Noise:
    """The random numbers of a penalty: u [B], and e like an example."""

    u: Array
    e: Example

    @classmethod
    def draw(cls, key: Key, x: Example) -> Noise:
        leaves, structure = jax.tree.flatten(x)
        mix, *keys = jax.random.split(key, 1 + len(leaves))
        normal = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        return cls(jax.random.uniform(mix, (len(leaves[0]),), leaves[0].dtype), jax.tree.unflatten(structure, normal))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientPenalty:
    """What (1) to (6) have in common; each says at which `points`, and how the `size` n counts.

    Attributes:
        every: updates of the critic between two that are penalised, which are so `every` times as much.
        sigma: s of (7), in units of the example; None for the exact gradient.

    Raises:
        ValueError: a field is outside its range.
    """

    every: int = 1
    sigma: float | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.every < 1:
            raise ValueError(f"{name}: every is {self.every}, but must be at least 1")
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"{name}: sigma is {self.sigma}, but must be more than 0, or None")
        for field in ("gamma", "weight", "reach"):
            if getattr(self, field, 0) < 0:
                raise ValueError(f"{name}: {field} is {getattr(self, field)}, but must be at least 0")

    def points(self, real: Example, fake: Example, noise: Noise) -> Example:
        raise NotImplementedError

    def size(self, n: Array) -> Array:
        raise NotImplementedError

    def __call__(self, critic: Critic, real: Example, fake: Example, noise: Noise | Key) -> Any:
        """The penalty, like the critic's values [B]; `noise` is a key, or the random numbers themselves."""
        if not isinstance(noise, Noise):
            noise = Noise.draw(noise, real)
        p = jax.lax.stop_gradient(self.points(real, fake, noise))
        n = slope(critic, p, noise.e, self.sigma) if self.sigma else gradient(critic, p)
        return jax.tree.map(self.size, n)


@dataclasses.dataclass(frozen=True)
class R1(GradientPenalty):
    """Equation (1)."""

    gamma: float = 1.0

    def points(self, real: Example, fake: Example, noise: Noise) -> Example:
        return real

    def size(self, n: Array) -> Array:
        return self.gamma / 2 * n


@dataclasses.dataclass(frozen=True)
class R2(GradientPenalty):
    """Equation (2)."""

    gamma: float = 1.0

    def points(self, real: Example, fake: Example, noise: Noise) -> Example:
        return fake

    def size(self, n: Array) -> Array:
        return self.gamma / 2 * n


@dataclasses.dataclass(frozen=True)
class WGANGP(GradientPenalty):
    """Equation (3); `one_sided`: slopes below 1 are free."""

    weight: float = 10.0
    one_sided: bool = False

    def points(self, real: Example, fake: Example, noise: Noise) -> Example:
        return between(real, fake, noise.u)

    def size(self, n: Array) -> Array:
        return self.weight * from_one(n, self.one_sided)


@dataclasses.dataclass(frozen=True)
class ZeroGP(GradientPenalty):
    """Equation (4)."""

    weight: float = 10.0

    def points(self, real: Example, fake: Example, noise: Noise) -> Example:
        return between(real, fake, noise.u)

    def size(self, n: Array) -> Array:
        return self.weight * n


@dataclasses.dataclass(frozen=True)
class DRAGAN(GradientPenalty):
    """Equation (5), c being `reach`."""

    weight: float = 10.0
    reach: float = 0.5

    def points(self, real: Example, fake: Example, noise: Noise) -> Example:
        return jax.tree.map(lambda x, e: x + self.reach * deviation(x) * e, real, noise.e)

    def size(self, n: Array) -> Array:
        return self.weight * from_one(n)


@dataclasses.dataclass(frozen=True)
class MAGP(GradientPenalty):
    """Equation (6): matching-aware, at real examples together with what they are given."""

    weight: float = 2.0

    def points(self, real: Example, fake: Example, noise: Noise) -> Example:
        return real

    def size(self, n: Array) -> Array:
        return self.weight * n**3


def gradient(critic: Critic, x: Example) -> Any:
    """|grad D(x)|^2, like the critic's values."""
    values, pull = jax.vjp(critic, precise(x))
    if not isinstance(values, dict):
        return squares(*pull(jnp.ones_like(values)))
    # The gradients of all critics of one part stand side by side, so that one pull serves them all.
    sums = {name: squares(*pull(_only(values, (name,)))) for name in values if name not in x}
    if parts := tuple(name for name in values if name in x):
        (side_by_side,) = pull(_only(values, parts))
        sums |= {name: squares(side_by_side[name]) for name in parts}
    return sums


def _only(values: dict[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
    """Ones for the values of these names, zeros for the others."""
    return {name: jnp.full_like(value, name in names) for name, value in values.items()}


def slope(critic: Critic, x: Example, e: Example, sigma: float) -> Any:
    """Equation (7), like the critic's values."""
    moved = jax.tree.map(lambda p, d: p + sigma * d, precise(x), e)
    return jax.tree.map(lambda up, at: ((up - at) / sigma) ** 2, critic(moved), critic(precise(x)))


def between(real: Example, fake: Example, u: Array) -> Example:
    """u x + (1 - u) y, with the same u [B] for all parts of an example."""

    def mixed(x: Array, y: Array) -> Array:
        share = u.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)
        return share * x + (1 - share) * y

    return jax.tree.map(mixed, real, fake)


def from_one(n: Array, one_sided: bool = False) -> Array:
    """(sqrt n - 1)^2. Where the critic is flat the root has no derivative; there it counts as 0."""
    flat = n == 0
    away = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, n))) - 1
    return (jax.nn.relu(away) if one_sided else away) ** 2


def deviation(x: Array) -> Array:
    """The standard deviation of all values of the global batch, a scalar."""
    flat = x.reshape(len(x), -1)
    mean = batch_mean(flat.mean(1))
    return jnp.sqrt(batch_mean(((flat - mean) ** 2).mean(1)))


def squares(x: Example) -> Array:
    """The sum of squares of every example, [B]."""
    return sum((leaf**2).reshape(len(leaf), -1).sum(1) for leaf in jax.tree.leaves(x))


def precise(x: Example) -> Example:
    """float32 for half precision; float64 stays."""
    return jax.tree.map(lambda p: p.astype(jnp.promote_types(p.dtype, jnp.float32)), x)


def taken(penalty: Penalty, update: Array, value: Callable[[], Any], nothing: Any) -> Any:
    """`value()` as it counts at that `update`: `every` times at the lazy ones, `nothing` (zeros like it) between."""
    if penalty.every == 1:
        return value()
    often = lambda: jax.tree.map(lambda x: penalty.every * x, value())  # noqa: E731
    return jax.lax.cond(update % penalty.every == 0, often, lambda: nothing)
