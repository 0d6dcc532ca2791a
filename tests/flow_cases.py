"""A flow whose network is not learned but right: its data are correlated Gaussians."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mmgen_jax.diffusion import Flow
from mmgen_jax.diffusion.network import symbols, value_times
from mmgen_jax.diffusion.paths import Denoised
from mmgen_jax.modalities import Vector

RHO = 0.8
COVARIANCE = np.array([[1, RHO], [RHO, 1]], np.float32)


@dataclasses.dataclass(frozen=True)
class Right:
    """What a network should say of two values with N(0, covariance), each at its own time; of symbols, nothing."""

    model: Flow

    def apply(self, variables, x, t, spans=None, method="__call__", depths=()):
        """The same as that of `JointTransformer`, which has no tokens to look at."""
        out = {name: self._says(self.model.modalities[name], x[name], t[name]) for name in x}
        return (out, {}) if method == "tapped" else out

    def _says(self, modality, x, t):
        if symbols(modality) is not None:
            return jnp.zeros((*x.shape, symbols(modality)))
        path, shape = self.model.path, x.shape
        level = path.level(jnp.broadcast_to(value_times(modality, t), shape)).reshape(-1, 2)
        x = x.reshape(-1, 2)
        x, c = x / path.shown(jnp.ones_like(x), level), path.coefficients(level)
        spread = c.alpha[:, :, None] * COVARIANCE[None] * c.alpha[:, None] + jnp.eye(2)[None] * (c.sigma**2)[..., None]
        residual = jnp.linalg.solve(spread + 1e-9 * jnp.eye(2)[None], x[..., None])[..., 0]
        data = jnp.einsum("ij,bj->bi", COVARIANCE, c.alpha * residual)
        return path.target(Denoised(data, c.sigma * residual), level).reshape(shape)


class Gaussian(Flow):
    """Two values with the covariance `COVARIANCE`, and any other modalities that nothing is said of."""

    @property
    def network(self):
        """The right one."""
        return Right(self)


def gaussian(**fields):
    """Of one modality `v`, and the fields of `Flow`."""
    return Gaussian(**{"modalities": {"v": Vector(2)}, "width": 16, "heads": 2, "steps": 12, **fields})
