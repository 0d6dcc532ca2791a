"""Spectral norm as a function of parameters (Miyato et al. 2018, arXiv:1802.05957).

    v <- M^T u / |M^T u|,   u <- M v / |M v|                                                          (1)
    W / sigma,              sigma = u^T M v,    u and v constants                                     (2)

M is a kernel W [..., inputs, outputs] as a matrix [outputs, all else]; sigma tends to its largest singular value. No
layer knows of it: any network, a user's own as well, is normalised by applying it to `normalised(params, vectors)`.
What has fewer than two axes (biases, scales) stays as it is, and so does a kernel of zeros. The vectors u are state, in
a tree like the parameters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key, Params, Stats

EPS = 1e-12  # of lengths that are divided by


def vectors(key: Key, params: Params) -> Params:
    """A random u [outputs] of length one for each kernel; for all else a zero, as checkpoints hold no empty arrays."""

    def start(path: tuple, w: Array) -> Array:
        if w.ndim < 2:
            return jnp.zeros((), w.dtype)
        return unit(jax.random.normal(fold_name(key, jax.tree_util.keystr(path)), (w.shape[-1],), w.dtype))

    return jax.tree_util.tree_map_with_path(start, params)


def iterated(params: Params, us: Params) -> Params:
    """The vectors after one more iteration."""

    def after(w: Array, u: Array) -> Array:
        if w.ndim < 2:
            return u
        new, _ = iteration(w, u)
        return jnp.where(new.any(), new, u)  # of a kernel of zeros nothing can be learned, and nothing is forgotten

    return jax.tree.map(after, params, us)


def normalised(params: Params, us: Params) -> Params:
    """Equation (2) for every kernel, one iteration (1) after the vectors `us`."""

    def of(w: Array, u: Array) -> Array:
        if w.ndim < 2:
            return w
        norm = sigma(w, u)
        return w / jnp.where(norm == 0, 1, norm)

    return jax.tree.map(of, params, us)


def begun(key: Key, params: Params, which: str | None) -> Stats:
    """The statistics of a game in which `which` is normalised: "critic", "both" players, or None."""
    players = {"critic": ("critic",), "both": ("critic", "generator"), None: ()}[which]
    us = {player: vectors(fold_name(key, f"spectral/{player}"), params[player]) for player in players}
    return {"spectral": us} if us else {}


def used(player: str, params: Params, stats: Stats) -> Params:
    """What a player's networks are applied to: `normalised` parameters where it has vectors in the state, or these."""
    if player not in stats.get("spectral", {}):
        return params
    return normalised(params, stats["spectral"][player])


def sigma(w: Array, u: Array) -> Array:
    """The largest singular value of w, a scalar, as one iteration after u says."""
    u, v = iteration(w, u)
    return u @ matrix(w) @ v


def iteration(w: Array, u: Array) -> tuple[Array, Array]:
    """Equation (1): the next u, and its v. Constants."""
    m = matrix(jax.lax.stop_gradient(w))
    v = unit(m.T @ jax.lax.stop_gradient(u))
    return unit(m @ v), v


def matrix(w: Array) -> Array:
    """M of equation (1)."""
    return w.reshape(-1, w.shape[-1]).T


def unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), EPS)
