"""k-means: centres with a small sum of squared distances of every example to the nearest of them (Lloyd 1982).

Begun by k-means++ (Arthur & Vassilvitskii 2007): each first centre is an example, drawn in proportion to its squared
distance to the nearest centre before it. Examples that are not used stand in the arrays all the same, so that one
compiled program serves any choice of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.types import Array, Key

STEPS = 300  # at most; it ends where nothing moves any more, mostly after 10 to 50
LEAST = 1e-30  # a squared distance: something must be drawn even where all examples are centres already


def kmeans(key: Key, x: Array, used: Array, clusters: int) -> Array:
    """Centres [clusters, D] of those examples of x [N, D] that are `used`, bool [N]: where Lloyd's steps end."""

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, centres, _ = state
        members = (jax.nn.one_hot(nearest(centres, x), clusters, dtype=x.dtype) * used[:, None]).T
        count = members.sum(1, keepdims=True)
        means = jnp.matmul(members, x, precision="highest") / jnp.maximum(count, 1)
        new = jnp.where(count > 0, means, centres)  # a centre that has lost all its examples stays where it is
        return i + 1, new, (new != centres).any()

    begin = jnp.zeros((), jnp.int32), start(key, x, used, clusters), jnp.array(True)
    return lax.while_loop(lambda state: (state[0] < STEPS) & state[2], step, begin)[1]


def start(key: Key, x: Array, used: Array, clusters: int) -> Array:
    """The first centres [clusters, D] by k-means++."""

    def drawn(key: Key, distance: Array) -> Array:
        return x[jax.random.categorical(key, jnp.where(used, jnp.log(distance + LEAST), -jnp.inf))]

    def add(distance: Array, key: Key) -> tuple[Array, Array]:
        centre = drawn(key, distance)
        return jnp.minimum(distance, square(x - centre[None])), centre

    keys = jax.random.split(key, clusters)
    first = drawn(keys[0], jnp.ones_like(x[:, 0]))
    _, others = lax.scan(add, square(x - first[None]), keys[1:])
    return jnp.concatenate([first[None], others])


def nearest(centres: Array, x: Array) -> Array:
    """The number of the nearest of the centres [K, D] for every x [N, D], int [N]."""
    return jnp.argmin(lax.map(lambda centre: square(x - centre[None]), centres), axis=0)


def square(x: Array) -> Array:
    """|x|^2, [N] of [N, D]."""
    return jnp.square(x).sum(-1)
