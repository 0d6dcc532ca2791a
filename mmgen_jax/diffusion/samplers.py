"""Ways back from noise to data, one step from time t to time s at a time, over pytrees.

With (alpha, sigma) at t, (alpha', sigma') at s, estimates x, eps and u of `Denoised`, lambda = ln(alpha / sigma),
h = lambda' - lambda, q = e^-h, z ~ N(0, I):

    Euler       x_s = x_t + (s - t) u                                                                       (1)
    Heun        x_s = x_t + (s - t) (u(x_t, t) + u(x_s of (1), s)) / 2; (1) alone to sigma' = 0             (2)
    DDIM        x_s = alpha' x + sigma' sqrt(1 - eta^2 (1 - q^2)) eps + eta sigma' sqrt(1 - q^2) z          (3)
                (Song et al. 2021, arXiv:2010.02502)
    ancestral   x_s = (sigma' / sigma) q x_t + alpha' (1 - q^2) x + std z                                   (4)
                std = sigma' sqrt(1 - q^2) (small) or sigma sqrt(1 - q^2) (large); 0 to sigma' = 0
                (Ho et al. 2020, arXiv:2006.11239)
    renoise     x_s = alpha' x + sigma' z       (Song et al. 2023, arXiv:2303.01469, algorithm 1)           (5)
    SDE         x_s = x_t + (s - t) (u + eps / 2) + sqrt(sigma (t - s)) z; no z to sigma' = 0               (6)
                (Ma et al. 2024, arXiv:2401.08740: Euler-Maruyama with w(t) = sigma)
    churn       t^ = (1 + gamma) t,  x^ = x_t + sqrt(t^^2 - t^2) noise_scale z, then another's step t^ -> s (7)
                (Karras et al. 2022, arXiv:2206.00364, algorithm 2)

Every modality has its own times: t, s and the grid are pytrees like x whose leaves broadcast against x's (a grid's have
one leading axis more). A modality that stands still (t = s) stays as it is, at the ends 0 and 1 too; under (5), only at
0. A step is a deterministic function (`move`) of the noise that `step` draws. Multistep: `dpm_solver.py`.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.edm import EDM
from mmgen_jax.diffusion.paths import Coefficients, Denoised, Path, Tree, along
from mmgen_jax.diffusion.schedules import require_one_of
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key

Predict = Callable[[Tree, Tree], tuple[Denoised, Any]]  # (x, t) -> both halves as pytrees like x, anything else
Memory = Any  # what a multistep sampler keeps between steps
Moved = tuple[Tree, Memory, Any]  # x, memory, what the first evaluation said besides


def normal(key: Key, like: Tree) -> Tree:
    """Standard normal numbers for every leaf, whose draws do not depend on which others there are."""

    def draw(place: Any, x: Array) -> Array:
        return jax.random.normal(fold_name(key, jax.tree_util.keystr(place)), x.shape, x.dtype)

    return jax.tree_util.tree_map_with_path(draw, like)


def ratio(a: Array, b: Array) -> Array:
    """a / b where b is zero only if a is, because no step has been made: then 1."""
    return jnp.where(b == 0, 1, a / jnp.where(b == 0, 1, b))


def fading(a: Coefficients, b: Coefficients) -> Array:
    """q = e^-h of a step from a to b: 0 from pure noise and to pure data, and not above 1 by rounding."""
    return jnp.minimum(ratio(a.alpha * b.sigma, a.sigma * b.alpha), 1)


class Sampler(abc.ABC):
    """A frozen dataclass of settings, with pure methods."""

    def start(self, x: Tree) -> Memory:
        """The memory before the first step."""
        return ()

    def step(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, key: Key) -> Moved:
        """From x at the times t to the times s."""
        return self.move(predict, path, x, t, s, memory, normal(key, x))

    @abc.abstractmethod
    def move(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, noise: Tree) -> Moved:
        """`step` with the standard normal noise it draws, a pytree like x."""


def sample(sampler: Sampler, predict: Predict, path: Path, x: Tree, grid: Tree, key: Key) -> Tree:
    """From x at the grid's first times to its last, in one scan.

    grid: a pytree like x of times [n + 1, ...].
    """
    n = len(jax.tree.leaves(grid)[0]) - 1

    def body(carry: tuple[Tree, Memory], inputs: tuple[Tree, Tree, Key]) -> tuple[tuple[Tree, Memory], None]:
        (x, memory), (t, s, key) = carry, inputs
        x, memory, _ = sampler.step(predict, path, x, t, s, memory, key)
        return (x, memory), None

    times = (jax.tree.map(lambda g: g[:-1], grid), jax.tree.map(lambda g: g[1:], grid), jax.random.split(key, n))
    return jax.lax.scan(body, (x, sampler.start(x)), times)[0][0]


@dataclasses.dataclass(frozen=True)
class Euler(Sampler):
    """Equation (1)."""

    def move(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, noise: Tree) -> Moved:
        """One evaluation."""
        both, aux = predict(x, t)
        x = jax.tree.map(lambda x, u, t, s: x + (s - t) * u, x, both.velocity(along(path, t)), t, s)
        return x, memory, aux


@dataclasses.dataclass(frozen=True)
class Heun(Sampler):
    """Equation (2)."""

    def move(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, noise: Tree) -> Moved:
        """Two evaluations; at t, not at s, of what ends at sigma = 0, where a network need not be defined."""
        both, aux = predict(x, t)
        first = both.velocity(along(path, t))
        ahead = jax.tree.map(lambda x, u, t, s: x + (s - t) * u, x, first, t, s)
        ends = jax.tree.map(lambda s: path.coefficients(s).sigma == 0, s)
        then = jax.tree.map(jnp.where, ends, t, s)
        second = predict(ahead, then)[0].velocity(along(path, then))

        def correct(x: Array, u: Array, v: Array, t: Array, s: Array, end: Array) -> Array:
            return x + (s - t) * jnp.where(end, u, (u + v) / 2)

        return jax.tree.map(correct, x, first, second, t, s, ends), memory, aux


class Explicit(Sampler):
    """One evaluation, then one formula for each leaf."""

    @abc.abstractmethod
    def leap(self, x: Array, data: Array, eps: Array, a: Coefficients, b: Coefficients, z: Array) -> Array:
        """From x at the coefficients a to b, with the estimates `data` and `eps` and the noise z."""

    def move(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, noise: Tree) -> Moved:
        """`leap` for each leaf."""
        both, aux = predict(x, t)
        x = jax.tree.map(self.leap, x, both.data, both.noise, along(path, t), along(path, s), noise)
        return x, memory, aux


@dataclasses.dataclass(frozen=True)
class DDIM(Explicit):
    """Equation (3); eta from 0 (deterministic) to 1 (`Ancestral` with the small variance)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"DDIM: eta is {self.eta}, but must be between 0 and 1")

    def leap(self, x: Array, data: Array, eps: Array, a: Coefficients, b: Coefficients, z: Array) -> Array:
        """Equation (3)."""
        fresh = self.eta**2 * (1 - fading(a, b) ** 2)
        return b.alpha * data + b.sigma * (jnp.sqrt(1 - fresh) * eps + jnp.sqrt(fresh) * z)


@dataclasses.dataclass(frozen=True)
class Ancestral(Explicit):
    """Equation (4), the posterior of x_s given x_t and the estimate of x."""

    variance: Literal["small", "large"] = "small"

    def __post_init__(self) -> None:
        require_one_of("Ancestral", "variance", self.variance, ("small", "large"))

    def leap(self, x: Array, data: Array, eps: Array, a: Coefficients, b: Coefficients, z: Array) -> Array:
        """Equation (4)."""
        q = fading(a, b)
        scale = b.sigma if self.variance == "small" else jnp.where(b.sigma == 0, 0, a.sigma)
        return ratio(b.sigma, a.sigma) * q * x + b.alpha * (1 - q**2) * data + scale * jnp.sqrt(1 - q**2) * z


@dataclasses.dataclass(frozen=True)
class Renoise(Explicit):
    """Equation (5): all noise is drawn anew, as consistency models do in several steps."""

    def leap(self, x: Array, data: Array, eps: Array, a: Coefficients, b: Coefficients, z: Array) -> Array:
        """Equation (5)."""
        return b.alpha * data + b.sigma * z


@dataclasses.dataclass(frozen=True)
class SDE(Sampler):
    """Equation (6)."""

    def move(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, noise: Tree) -> Moved:
        """One evaluation."""
        a, b = along(path, t), along(path, s)
        both, aux = predict(x, t)

        def leap(x: Array, u: Array, eps: Array, t: Array, s: Array, a: Any, b: Any, z: Array) -> Array:
            spread = jnp.where(b.sigma == 0, 0, a.sigma * (t - s))
            return x + (s - t) * (u + eps / 2) + jnp.sqrt(spread) * z

        return jax.tree.map(leap, x, both.velocity(a), both.noise, t, s, a, b, noise), memory, aux


@dataclasses.dataclass(frozen=True, kw_only=True)
class Churn(Sampler):
    """Equation (7), on the path `EDM`.

    solver: whose step follows, `Heun()` or `Euler()`: fresh noise makes nonsense of what multistep solvers remember.
    churn: gamma, as published S_churn over the number of steps, at most sqrt(2) - 1.
    low, high: noise levels outside of which gamma is 0. noise_scale: S_noise.
    """

    solver: Euler | Heun = Heun()
    churn: float = math.sqrt(2) - 1
    low: float = 0.0
    high: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.solver, Euler | Heun):
            raise ValueError(f"Churn: solver is {self.solver}, but must be one of Euler(), Heun()")
        if self.churn < 0:
            raise ValueError(f"Churn: churn is {self.churn}, but must not be negative")
        if self.low > self.high:
            raise ValueError(f"Churn: low is {self.low}, but must not be above high = {self.high}")

    def move(self, predict: Predict, path: Path, x: Tree, t: Tree, s: Tree, memory: Memory, noise: Tree) -> Moved:
        """The noise level is raised, and the solver steps from there."""
        if not isinstance(path, EDM):
            raise ValueError(f"Churn: path is {type(path).__name__}, but must be EDM, whose time is the noise level")
        factor = 1 + min(self.churn, math.sqrt(2) - 1)
        raised = jax.tree.map(lambda t: jnp.where((self.low <= t) & (t <= self.high), factor * t, t), t)

        def churned(x: Array, t: Array, up: Array, z: Array) -> Array:
            return x + jnp.sqrt(up**2 - t**2) * self.noise_scale * z

        x = jax.tree.map(churned, x, t, raised, noise)
        return self.solver.move(predict, path, x, raised, s, memory, noise)
