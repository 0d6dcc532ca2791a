"""MeanFlow: the network learns where a whole stretch of the path leads, and one step is enough (arXiv:2505.13447).

    u(x_t, t, r) = 1 / (t - r) int_r^t v(x_s, s) ds      the mean velocity from t back to r                        (1)
    u = v - (t - r) du/dt,   du/dt = dx/dt d_x u + d_t u, one forward-mode derivative                              (2)
    L = |u - stop(v - (t - r) du/dt)|^2 / stop(the same + 0.01)                                                   (3)
    x_r = x_t - (t - r) u(x_t, t, r)                                                                              (4)

(Geng et al. 2025.) One step goes from t = 1 to r = 0, so times should be drawn near both ends too. Here for several
modalities: in (2) all for which r < t move together, each with its own conditional velocity; what is given clean, or
not there, stands still. The network is told t - r beside t. Where r = t, (3) is flow matching. Symbols have no velocity
and are learned as ever: in one step they are drawn independently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmgen_jax.diffusion.masked import aligned
from mmgen_jax.diffusion.objective import Network, Said, Values, squared_error, standing
from mmgen_jax.diffusion.weights import Times as Density
from mmgen_jax.diffusion.weights import UniformTimes
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key


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
    spans: ClassVar[bool] = True
    differentiated: ClassVar[bool] = True
    counts: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"MeanFlow: share is {self.share}, but must be from 0 to 1")

    def draw(self, key: Key, t: Values, moving: Mapping[str, Array]) -> tuple[Values, Values]:
        """The times as they are, and t - r [B] for each modality, with one r for all of an example."""
        count = next(iter(t.values())).shape
        r = self.density.sample(fold_name(key, "r"), count, jnp.float32)
        far = jax.random.bernoulli(fold_name(key, "far"), self.share, count)
        spans = {name: jnp.where(far & there, jnp.maximum(t[name] - r, 0.0), 0.0) for name, there in moving.items()}
        return t, standing(t) | spans

    def errors(
        self, network: Network, teacher: Network, seen: Values, targets: Values, t: Values, spans: Values
    ) -> tuple[Said, Values]:
        """What the network says, and (3) [B] for each modality that has a target, v: see `Objective`."""
        moving = {name: (span > 0).astype(jnp.float32) for name, span in spans.items()}

        def real(x: Values, t: Values, spans: Values) -> tuple[Values, Said]:
            said = network({**seen, **x}, t, spans)
            return {name: said[0][name] for name in targets}, said

        x = {name: seen[name] for name in targets}
        ways = {name: v * aligned(moving[name], v) for name, v in targets.items()}
        u, change, said = jax.jvp(real, (x, t, spans), (ways, moving, moving), has_aux=True)
        errors = {}
        for name, v in targets.items():
            target = jax.lax.stop_gradient(v - aligned(spans[name], v) * change[name])
            error = squared_error(u[name], target)
            errors[name] = error / jax.lax.stop_gradient(error + 0.01)
        return said, errors
