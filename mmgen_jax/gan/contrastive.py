"""Contrastive losses: what belongs together is to be more alike than what does not.

a_i and b_i [D] say something of the same example, such as its picture and its sentence, or a made picture and the real
one it was made after; the other b_j of the batch are what they are told from. With cos the cosine and t a scale,

    one way      -log softmax_j (t cos(a_i, b_j)) at j = i                                                     (1)
    InfoNCE      (1) of a and b, and (1) of b and a, added                                                     (2)
    CLIP         half of (2), with t = exp(s) learned                                                          (3)
    SigLIP       -sum_j log sigmoid(z_ij (exp(s) cos(a_i, b_j) + c)),   z_ij = 1 where i = j, else -1          (4)

(1) van den Oord et al. 2018, arXiv:1807.03748. (2) with t = 10 is that of XMC-GAN (Zhang et al. 2021,
arXiv:2101.04702), by which real examples teach the critic and made ones the generator: sentence and picture, made and
real picture (`cooperation.py`). (3) Radford et al. 2021, arXiv:2103.00020. (4) Zhai et al. 2023, arXiv:2303.15343: s
and c are learned too. All are losses [B] of embeddings [B, D] of any length; under `jax.shard_map` the b_j are those of
all devices. In (1) and (2) j may be kept to examples that are `there`, bool [B]; losses of others then mean nothing,
but are finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.train.step import device_axes
from mmgen_jax.types import Array

SHORTEST = 1e-12  # an embedding that is shorter counts as this long, and so is like nothing
FAR = -1e9  # instead of the likeness of what is not there


def cosines(a: Array, b: Array) -> Array:
    """cos(a_i, b_j) of embeddings [n, D] and [m, D]: [n, m]."""
    return _unit(a) @ _unit(b).T


def one_way(a: Array, b: Array, scale: Array | float = 10.0, there: Array | None = None) -> Array:
    """Equation (1), [B]: which of all b, or of those `there`, belongs to each a."""
    alike = scale * cosines(a, _of_all_devices(b))
    others = alike if there is None else jnp.where(_of_all_devices(there)[None], alike, FAR)
    return jax.nn.logsumexp(others, axis=1) - _own(alike)


def info_nce(a: Array, b: Array, scale: Array | float = 10.0, there: Array | None = None) -> Array:
    """Equation (2), [B]."""
    return one_way(a, b, scale, there) + one_way(b, a, scale, there)


def clip(a: Array, b: Array, log_scale: Array | float) -> Array:
    """Equation (3), [B]."""
    return info_nce(a, b, jnp.exp(log_scale)) / 2


def siglip(a: Array, b: Array, log_scale: Array | float, bias: Array | float) -> Array:
    """Equation (4), [B]: every pair by itself, so that nothing is normalised over the batch."""
    alike = jnp.exp(log_scale) * cosines(a, _of_all_devices(b)) + bias
    # As if z were -1 everywhere, and then, since softplus(-x) = softplus(x) - x, put right where it is 1.
    return jax.nn.softplus(alike).sum(1) - _own(alike)


def _unit(x: Array) -> Array:
    """x [n, D] at length 1, float32 or better. The root is of something above 0, so that it has a gradient."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * lax.rsqrt(jnp.maximum((x**2).sum(-1, keepdims=True), SHORTEST**2))


def _of_all_devices(x: Array) -> Array:
    """The rows of x [B, D] on all devices together."""
    for axis in reversed(device_axes(x)):
        x = lax.all_gather(x, axis, tiled=True)
    return x


def _own(alike: Array) -> Array:
    """The entries [B] of [B, all devices' B] that are of the same example."""
    first = 0
    for axis in device_axes(alike):
        first = first * lax.axis_size(axis) + lax.axis_index(axis)
    rows = jnp.arange(len(alike))
    return alike[rows, first * len(alike) + rows]
