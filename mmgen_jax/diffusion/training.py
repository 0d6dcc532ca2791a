"""From data to a loss: every modality at a time of its own, what the network should say of it, and how wrong it is.

    x_t = alpha(t) x + sigma(t) eps              real values: the network says which way x_t moves     (1)
    w_t = w, or the mask with probability t      symbols: the network says what is under the mask      (2)

    L = sum_m w_m mean [t_m > 0] |u_m - (alpha' x_m + sigma' eps_m)|^2         of (1)                  (3)
    L = sum_m w_m mean over masked places of -log p(w_m)                       of (2)                  (4)

(3) is flow matching, which another objective may take the place of (`objective.py`). The mean over the places that
happen to be masked stands for the weight 1 / t of the bound on the likelihood, without its spread.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmgen_jax.diffusion.learned import VDM
from mmgen_jax.diffusion.masked import aligned, corrupt
from mmgen_jax.diffusion.network import symbols, value_times
from mmgen_jax.diffusion.objective import Values
from mmgen_jax.diffusion.paths import Denoised, noised
from mmgen_jax.diffusion.representation import after
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Params


def loss(model: Any, params: Params, batch: Batch, key: Key, teacher: Params) -> tuple[Array, dict[str, Array]]:
    """`Flow.loss`, for all arguments."""
    if not isinstance(model.path, VDM):
        return errors(model, params, batch, key, teacher)
    # How large the loss of each example is must be known before its gradient: equation (4) of `learned.py`.
    first, _ = errors(model.on_path(params), params, batch, key, teacher)
    return errors(model.on_path(params, 2 * jax.lax.stop_gradient(first)), params, batch, key, teacher)


def errors(model: Any, params: Params, batch: Batch, key: Key, teacher: Params) -> tuple[Array, dict[str, Array]]:
    """The same on the path that the model has."""
    batch, extra = batch.only(model.modalities), model.representation
    t, spans = times(model, batch.present, fold_name(key, "times"))
    clean, noise = model.standardised(batch.values), model.noise(fold_name(key, "noise"), len(batch))
    noised_to = functools.partial(corrupted, model, clean, noise, key)
    network = functools.partial(model.network.apply, method="tapped")
    blocks = model.joint + model.depth
    depths = () if extra is None else (after(extra.depth, blocks),)
    student = functools.partial(network, {"params": params}, depths=depths)
    taught = functools.partial(network, {"params": teacher})
    seen = noised_to(t)
    (out, kept), found = model.objective.errors(student, taught, seen, targets(model, clean, noise, t), t, spans)
    terms, total = {}, 0.0
    for name, x in clean.items():
        if name in found:
            term = weighted(model, found[name], value_times(model.modalities[name], t[name]))
        else:
            term = hidden_error(out[name], x, seen[name] == noise[name])
        terms[f"loss/{name}"] = jnp.where(batch.present[name], term, 0.0)
        total += model.weights.get(name, 1.0) * terms[f"loss/{name}"]
    if extra is not None:

        def look(times: Mapping[str, Array], share: float) -> Array:
            depth = after(share, blocks)
            return jax.lax.stop_gradient(taught(noised_to(times), times, depths=(depth,))[1][depth])

        terms["representation"] = extra.error(params, kept[depths[0]], t, batch.present, look)
        total += extra.weight * terms["representation"]
    return total, terms


def real(model: Any) -> list[str]:
    """The modalities of real values."""
    return [name for name, modality in model.modalities.items() if symbols(modality) is None]


def times(model: Any, present: Mapping[str, Array], key: Key) -> tuple[Values, Values]:
    """The times [B] (or [B, T_m]) and the spans [B] of all modalities."""
    counts = {name: len(modality.positions()) for name, modality in model.modalities.items()}
    t = model.times.draw(key, present, counts)
    # What is at exactly 1 stands for what is not there: it is on no way.
    moving = {name: aligned(present[name], t[name]) & (t[name] > 0) & (t[name] < 1) for name in real(model)}
    return model.objective.draw(fold_name(key, "spans"), t, moving)


def corrupted(model: Any, clean: Values, noise: Values, key: Key, t: Mapping[str, Array]) -> Values:
    """Equations (1) and (2): all modalities at times t [B] or [B, T_m]."""

    def at(name: str, x: Array) -> Array:
        time, count = value_times(model.modalities[name], t[name]), symbols(model.modalities[name])
        if count is not None:
            return corrupt(fold_name(key, f"mask/{name}"), x, time, count)
        level = model.path.level(time)
        x = model.path.shown(noised(x, noise[name], model.path.coefficients(level)), level)
        return jnp.where(time < 1, x, noise[name])  # on every path, as what stands for what is not there

    return {name: at(name, x) for name, x in clean.items()}


def targets(model: Any, clean: Values, noise: Values, t: Values) -> Values:
    """What the network should say of real values [B, *shape] on their way to `noise`, by (3)."""

    def of(name: str) -> Array:
        level = model.path.level(value_times(model.modalities[name], t[name]))
        return model.path.target(Denoised(clean[name], noise[name]), level)

    return {name: of(name) for name in real(model)}


def weighted(model: Any, error: Array, t: Array) -> Array:
    """(3), [B], of an error [B] or [B, *shape] of values that are at times t, [B, 1, ...] or [B, *shape]."""
    weight = model.weighting(model.path.coefficients(model.path.level(t)), model.path.prediction)
    weight = jnp.where(t > 0, weight, 0.0)  # what is clean has nothing to say
    return (weight * aligned(error, t)).reshape(len(t), -1).mean(axis=1)


def hidden_error(logits: Array, x: Array, hidden: Array) -> Array:
    """(4), [B]: logits [B, ..., symbols], symbols x and whether they are hidden [B, ...]; 0 if none is."""
    error = optax.softmax_cross_entropy_with_integer_labels(logits, x)
    error, hidden = (a.reshape(len(x), -1) for a in (error, hidden))
    return jnp.sum(error * hidden, axis=1) / jnp.maximum(jnp.sum(hidden, axis=1), 1)
