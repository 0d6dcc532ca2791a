"""MeanFlow: the network learns where a whole stretch of the path leads, and one step is enough (arXiv:2505.13447).

    u(x_t, t, r) = 1 / (t - r) int_r^t v(x_s, s) ds      the mean velocity from t back to r                        (1)
    u = v - (t - r) du/dt,   du/dt = dx/dt d_x u + d_t u, one forward-mode derivative                              (2)
    L = |u - stop(v - (t - r) du/dt)|^2 / stop(the same + 0.01)                                                   (3)
    x_r = x_t - (t - r) u(x_t, t, r)                                                                              (4)

(Geng et al. 2025.) One step goes from t = 1 to r = 0, so times should be drawn near both ends too. Here for several
modalities: in (2) all that are on their way move together, each with its own conditional velocity; what is given clean,
or not there, stands still. The network is told t - r beside t. Where r = t, (3) is flow matching. Symbols have no
velocity and are learned as ever: in one step they are drawn independently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.masked import aligned
from mmgen_jax.diffusion.weights import Times as Density
from mmgen_jax.diffusion.weights import UniformTimes
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key

Values = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class MeanFlow:
    """The loss (3).

    Attributes:
        share: of the examples, for which r < t.
        density: of r, where it is drawn; what is drawn above t counts as t.

    Raises:
        ValueError: `share` is not from 0 to 1.
    """

    share: float = 0.25
    density: Density = UniformTimes()

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"MeanFlow: share is {self.share}, but must be from 0 to 1")

    def spans(self, key: Key, t: Mapping[str, Array]) -> Values:
        """t - r [B] for each modality, with one r for all of an example."""
        count = next(iter(t.values())).shape
        r = self.density.sample(fold_name(key, "r"), count, jnp.float32)
        far = jax.random.bernoulli(fold_name(key, "far"), self.share, count)
        return {name: jnp.where(far, jnp.maximum(time - r, 0.0), 0.0) for name, time in t.items()}

    def errors(
        self,
        network: Callable[[Values, Values, Values], Values],
        seen: Values,
        velocity: Values,
        t: Values,
        present: Mapping[str, Array],
        key: Key,
    ) -> tuple[Values, Values]:
        """The network's outputs, and (3) [B] for each modality that has a velocity.

        network: (values, times, spans) -> outputs.
        seen: values [B, *shape] of all modalities at times t [B].
        velocity: v [B, *shape] of those with real values.
        """
        still = dict.fromkeys(t, jnp.zeros_like(next(iter(t.values()))))
        moving = {name: (present[name] & (t[name] > 0)).astype(jnp.float32) for name in velocity}
        spans = {**still, **{name: moving[name] * span for name, span in self.spans(key, t).items() if name in moving}}
        rates = {**still, **moving}

        def real(x: Values, t: Values, spans: Values) -> tuple[Values, Values]:
            out = network({**seen, **x}, t, spans)
            return {name: out[name] for name in velocity}, out

        x = {name: seen[name] for name in velocity}
        ways = {name: velocity[name] * aligned(moving[name], velocity[name]) for name in velocity}
        u, change, out = jax.jvp(real, (x, t, spans), (ways, rates, rates), has_aux=True)
        errors = {}
        for name, v in velocity.items():
            target = jax.lax.stop_gradient(v - aligned(spans[name], v) * change[name])
            error = jnp.square(u[name] - target).mean(axis=tuple(range(1, v.ndim)))
            errors[name] = error / jax.lax.stop_gradient(error + 0.01)
        return out, errors
