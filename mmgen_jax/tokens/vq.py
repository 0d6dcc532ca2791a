"""Vector quantisation: the nearest of K learned codes e_k (van den Oord et al. 2017, arXiv:1711.00937).

    k = argmin_k |z - e_k|^2                                                                                       (1)
    error = beta mean (z - sg(e_k))^2, + mean (sg(z) - e_k)^2 where the codes are learned by gradient              (2)

Else they are moving averages of the vectors that they stand for (appendix A.1 of the same), n_k of them in a batch:

    N_k <- d N_k + (1 - d) n_k,   m_k <- d m_k + (1 - d) sum z                                                     (3)
    e_k = m_k / N'_k,   N'_k = (N_k + eps) / (sum N + K eps) sum N                                                 (4)

Codes begin as the centres of k-means of the first batch. A code that is taken far less often than others (N_k below a
share of the mean) is dead: it becomes a vector drawn from the batch. Cosine: z and the codes have length 1.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.nn.kmeans import kmeans
from mmgen_jax.tokens.quantizer import Quantized, rotated, straight_through, unit
from mmgen_jax.train.step import device_axes
from mmgen_jax.types import Array, Key, Params, Stats

EPS = 1e-5  # of equation (4)


@dataclasses.dataclass(frozen=True)
class VQ:
    """A `Quantizer` with a codebook [size, width].

    Attributes:
        learned: by gradient, in place of (3) and (4).
        cosine: for vectors of length 1.
        rotation: gradients turn with the vector, in place of straight through.
        beta: of (2).
        decay: d of (3).
        dead: the share of the mean count below which a code is replaced; 0 for never.

    Raises:
        ValueError: a field is outside its range.
    """

    size: int = 512
    width: int = 8
    _: dataclasses.KW_ONLY
    learned: bool = False
    cosine: bool = False
    rotation: bool = False
    beta: float = 0.25
    decay: float = 0.99
    dead: float = 0.03

    def __post_init__(self) -> None:
        for field, fits, what in (
            ("size", self.size >= 2, "at least 2"),
            ("width", self.width >= 1, "at least 1"),
            ("beta", self.beta >= 0, "at least 0"),
            ("decay", 0 <= self.decay < 1, "from 0 to below 1"),
            ("dead", 0 <= self.dead < 1, "from 0 to below 1"),
        ):
            if not fits:
                raise ValueError(f"VQ: {field} is {getattr(self, field)!r}, but must be {what}")

    @property
    def symbols(self) -> int:
        return 1

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Codes at random, with counts of 0, which says that they have not begun."""
        codebook, count = self._placed(jax.random.normal(key, (self.size, self.width))), jnp.zeros(self.size)
        if self.learned:
            return {"codebook": codebook}, {"count": count, "dead": count > 0, "fresh": codebook}
        return {}, {"count": count, "codebook": codebook, "sum": jnp.zeros_like(codebook)}

    def __call__(self, params: Params, stats: Stats, z: Array) -> Quantized:
        """z [..., width] by (1) and (2)."""
        z, codebook = self._placed(z), self._codebook(params, stats)
        indices = nearest(lax.stop_gradient(codebook), lax.stop_gradient(z))
        e = codebook[indices]
        error = self.beta * jnp.square(z - lax.stop_gradient(e)).mean(-1)
        if self.learned:
            error = error + jnp.square(lax.stop_gradient(z) - e).mean(-1)
        return Quantized((rotated if self.rotation else straight_through)(z, e), indices[..., None], error)

    def codes(self, params: Params, stats: Stats, indices: Array) -> Array:
        """The codes [..., width] with these numbers [..., 1]."""
        return self._codebook(params, stats)[indices[..., 0]]

    def update(self, params: Params, stats: Stats, z: Array, indices: Array, used: Array, key: Key) -> Stats:
        """The statistics after a batch: (3) and (4), the first codes, and new ones for the dead."""
        z, indices, used, key = everywhere(self._placed(z), indices[..., 0], used, key)
        ones = jax.nn.one_hot(indices, self.size, dtype=z.dtype) * used[:, None]
        count = self.decay * stats["count"] + (1 - self.decay) * ones.sum(0)
        begun = (stats["count"] > 0).any()
        dead = ~begun | (count < self.dead * count.mean())
        fresh = lax.cond(
            begun,
            lambda: z[some(key, used, self.size)],
            lambda: kmeans(key, z, used, self.size),
        )
        fresh = self._placed(fresh)
        mean = used.sum() / self.size  # the count of a code that is taken as often as others
        new = jnp.where(dead, mean.astype(count.dtype), count)
        if self.learned:
            return {"count": new, "dead": dead, "fresh": fresh}
        total = self.decay * stats["sum"] + (1 - self.decay) * jnp.matmul(ones.T, z, precision="highest")
        smooth = (count + EPS) / (count.sum() + self.size * EPS) * count.sum()
        average = self._placed(total / jnp.maximum(smooth, 1e-30)[:, None])
        return {
            "count": new,
            "codebook": jnp.where(dead[:, None], fresh, average),
            "sum": jnp.where(dead[:, None], new[:, None] * fresh, total),
        }

    def settle(self, params: Params, stats: Stats) -> Params:
        """Parameters with the first codes, and new ones for the dead, that `update` has found."""
        if not self.learned:
            return params
        return {"codebook": jnp.where(stats["dead"][:, None], stats["fresh"], params["codebook"])}

    def _codebook(self, params: Params, stats: Stats) -> Array:
        return self._placed(params["codebook"] if self.learned else stats["codebook"])

    def _placed(self, z: Array) -> Array:
        return unit(z) if self.cosine else z


def nearest(codebook: Array, z: Array) -> Array:
    """Equation (1) without |z|^2, which is the same for all codes: int32 [...]."""
    products = jnp.einsum("...d,kd->...k", z, codebook, precision="highest")
    squares = jnp.square(codebook).sum(-1).reshape((1,) * (z.ndim - 1) + (-1,))
    return jnp.argmin(squares - 2 * products, axis=-1).astype(jnp.int32)


def some(key: Key, used: Array, count: int) -> Array:
    """Numbers [count] of rows that are `used`, bool [N], drawn without replacement as long as there are any."""
    shuffled = jnp.argsort(jnp.where(used, jax.random.uniform(key, used.shape), 2.0))
    return shuffled[jnp.arange(count) % jnp.maximum(used.sum(), 1)]


def everywhere(z: Array, indices: Array, used: Array, key: Key) -> tuple[Array, Array, Array, Key]:
    """z [N, D], indices [N], used [N] of all devices, and one key, without a gradient. `used` may lack axes of z."""
    z, axes = lax.stop_gradient(z), device_axes(z)
    used = jnp.broadcast_to(used.reshape(used.shape + (1,) * (z.ndim - 1 - used.ndim)), z.shape[:-1])
    z, indices, used = z.reshape(-1, z.shape[-1]), indices.reshape(-1), used.reshape(-1)
    for axis in axes:  # in `jax.shard_map`, where what is learned must be the same everywhere
        own = jax.nn.one_hot(lax.axis_index(axis), lax.axis_size(axis), dtype=z.dtype)

        def gathered(x: Array, own: Array = own, axis: str = axis) -> Array:
            spread = own.reshape(-1, *(1,) * x.ndim).astype(x.dtype) * x[None]
            return lax.psum(spread, axis).reshape(-1, *x.shape[1:])

        z, indices, used = gathered(z), gathered(indices), gathered(used.astype(jnp.int32)) > 0
        key = jax.random.wrap_key_data(lax.psum(jax.random.key_data(key), axis))
    return z, indices, used, key
