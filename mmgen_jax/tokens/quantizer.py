"""What a quantiser is: it replaces a vector z by one of finitely many codes e, and lets gradients through.

    straight through    q = z + sg(e - z),   dq / dz = I                (Bengio et al. 2013, arXiv:1308.3432)       (1)
    rotation            q = sg(|e| / |z| R) z,   R turns z / |z| to e / |e|    (Fifty et al. 2024, arXiv:2410.06424) (2)
                        R = I - 2 r r^T + 2 e^ z^T,   r = (z^ + e^) / |z^ + e^|,   x^ = x / |x|

sg is the stop-gradient. How well a codebook is used is told by the frequencies p of its codes:

    use = share of codes with p > 0,   perplexity = exp(-sum p log p)                                              (3)
"""

from __future__ import annotations

from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Key, Params, Stats


@flax.struct.dataclass
class Quantized:
    """codes [..., width], through which gradients go; their numbers, int32 [..., symbols]; a term of the loss [...]."""

    codes: Array
    indices: Array
    error: Array


class Quantizer(Protocol):
    """A frozen dataclass that replaces vectors [..., width] by `symbols` numbers below `size` each."""

    width: int

    @property
    def size(self) -> int: ...
    @property
    def symbols(self) -> int: ...
    def init(self, key: Key) -> tuple[Params, Stats]: ...
    def __call__(self, params: Params, stats: Stats, z: Array) -> Quantized: ...
    def codes(self, params: Params, stats: Stats, indices: Array) -> Array: ...  # [..., symbols] -> [..., width]

    # Learning that no gradient does. `used`: bool [...], which of the vectors z [..., width] are data.
    def update(self, params: Params, stats: Stats, z: Array, indices: Array, used: Array, key: Key) -> Stats: ...
    def settle(self, params: Params, stats: Stats) -> Params: ...  # the parameters after the step of gradient descent


def straight_through(z: Array, e: Array) -> Array:
    """Equation (1)."""
    return z + jax.lax.stop_gradient(e - z)


def rotated(z: Array, e: Array) -> Array:
    """Equation (2) for vectors along the last axis."""
    still, e = jax.lax.stop_gradient((z, e))
    z_unit, e_unit = unit(still), unit(e)
    r = unit(z_unit + e_unit)
    turned = z - 2 * r * dot(r, z) + 2 * e_unit * dot(z_unit, z)
    return turned * length(e) / jnp.maximum(length(still), 1e-12)


def unit(x: Array) -> Array:
    """x / |x| along the last axis; 0 stays 0."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def length(x: Array) -> Array:
    """|x|, [..., 1]."""
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


def dot(a: Array, b: Array) -> Array:
    """a . b, [..., 1]."""
    return jnp.sum(a * b, axis=-1, keepdims=True)


def usage(indices: Array, used: Array, size: int) -> dict[str, Array]:
    """Equation (3) of numbers below `size`, int [...], where they are `used`, bool [...]."""
    count = jnp.zeros(size).at[indices].add(used.astype(float))
    p = count / jnp.maximum(count.sum(), 1)
    entropy = -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)))
    return {"use": (count > 0).astype(count.dtype).mean(), "perplexity": jnp.exp(entropy)}
