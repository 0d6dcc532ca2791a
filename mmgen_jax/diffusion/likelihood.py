"""How probable a flow transformer finds an example: log p of some modalities, given any others.

    real values   dx = u(x, t) dt,   log p(x_0) = log N(x_1; 0, I) + int_0^1 div u(x_t, t) dt                      (1)
                  div u = E [e^T (du / dx) e],   e = +-1 at random     (Hutchinson; Grathwohl et al. 2019,
                  arXiv:1810.01367; Song et al. 2021, arXiv:2011.13456)
    symbols       log p(w) >= -E_t [1/t sum over masked places of -log p(w_l | w_t)]   (`masked.py`)             (2)

(1) is exact up to the steps and the draws of e; (2) is a bound. By the chain rule log p(a, b) = log p(a) +
log p(b | a), where a modality that is not given is noise at t = 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.diffusion.edm import EDM
from mmgen_jax.diffusion.masked import aligned, corrupt, elbo_weight
from mmgen_jax.diffusion.network import symbols
from mmgen_jax.modalities.given import known
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Estimate, Key, Params

if TYPE_CHECKING:
    from mmgen_jax.diffusion.model import Flow

START = 0.01  # t = 0 means that something is given: nobody trains a velocity there, so data count as being at this time


def log_likelihood(
    model: Flow, params: Params, batch: Batch, key: Key, of: str, *, steps: int = 32, draws: int = 8
) -> Estimate:
    """log p of the modality `of`, given the other modalities that are present; 0 for examples that do not have it.

    steps: of the integral (1), each two evaluations and their derivatives (Heun); not used for symbols.
    draws: of e in (1), or of times in (2), which are spread evenly over [0, 1].

    Raises:
        ValueError: `of` is no modality, or of real values on the path EDM; `steps` is below 1, or `draws` below 2.
    """
    modality = known(model.modalities, of)
    for field, value, least in (("steps", steps, 1), ("draws", draws, 2)):
        if value < least:
            raise ValueError(f"{field} is {value}, but must be at least {least}")
    if isinstance(model.path, EDM) and symbols(modality) is None:
        raise ValueError(f"path is {model.path}, but must end in noise alone at t = 1, as RectifiedFlow() does")
    batch = batch.masked()
    if symbols(modality) is not None:
        found = bounds(model, params, batch, key, of, draws)
    else:
        keys = jax.random.split(fold_name(key, "probes"), draws)
        found = jax.lax.map(lambda key: integrated(model, params, batch, key, of, steps), keys)
    found = jnp.where(batch.present[of], found, 0.0)
    return Estimate(found.mean(axis=0), found.std(axis=0, ddof=1) / math.sqrt(draws))


def bits_per_dimension(log_p: Array, modality_shape: tuple[int, ...], levels: int = 256) -> Array:
    """-log2 p of each value, for values in [0, 1] that were `levels` equally probable whole numbers before."""
    return -log_p / (math.log(2) * math.prod(modality_shape)) + math.log2(levels)


def seen(model: Flow, batch: Batch, key: Key, of: str, x: Array, t: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the network sees: x at times t [B] for `of`; the others clean where they are present, else noise."""
    clean, noise = model.clean(batch.values), model.noise(key, len(batch))
    values, times = {}, {}
    for name, there in batch.present.items():
        values[name] = jnp.where(aligned(there, clean[name]), clean[name], noise[name])
        times[name] = jnp.where(there, 0.0, 1.0)
    return {**values, of: x}, {**times, of: t}


def integrated(model: Flow, params: Params, batch: Batch, key: Key, of: str, steps: int) -> Array:
    """Equation (1) with one draw of e, [B]."""
    model = model.on_path(params)
    x = model.standardised(batch.values)[of]
    probe = jax.random.rademacher(fold_name(key, "probe"), x.shape, x.dtype)
    axes = tuple(range(1, x.ndim))

    def velocity(x: Array, t: Array) -> Array:
        values, times = seen(model, batch, fold_name(key, "others"), of, x, jnp.broadcast_to(t, x.shape[:1]))
        out = model.network.apply({"params": params}, values, times)[of]
        return model.path.understood(out, x, t).velocity(model.path.coefficients(t))

    def rates(x: Array, t: Array) -> tuple[Array, Array]:
        u, turned = jax.jvp(lambda x: velocity(x, t), (x,), (probe,))
        return u, jnp.sum(turned * probe, axis=axes)

    def step(carry: tuple[Array, Array], times: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (x, total), (t, s) = carry, times
        u, div = rates(x, t)
        v, later = rates(x + (s - t) * u, s)
        return (x + (s - t) * (u + v) / 2, total + (s - t) * (div + later) / 2), None

    grid = jnp.linspace(START, 1.0, steps + 1)
    (x, total), _ = jax.lax.scan(step, (x, jnp.zeros(len(x), x.dtype)), (grid[:-1], grid[1:]))
    base = jnp.sum(-0.5 * x**2 - 0.5 * math.log(2 * math.pi), axis=axes)
    spread = model.modalities[of].standard[1]
    return base + total - np.prod(x.shape[1:]) * math.log(spread)


def bounds(model: Flow, params: Params, batch: Batch, key: Key, of: str, draws: int) -> Array:
    """Equation (2) at `draws` times, [draws, B]."""
    x, count = batch.values[of], symbols(model.modalities[of])

    def bound(inputs: tuple[Array, Key]) -> Array:
        t, key = inputs
        t = jnp.broadcast_to(t, x.shape[:1])
        hidden = corrupt(fold_name(key, "mask"), x, t, count)
        logits = model.network.apply({"params": params}, *seen(model, batch, key, of, hidden, t))[of]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), x[..., None], axis=-1)[..., 0]
        found = jnp.where(hidden == count, log_p, 0.0).reshape(len(x), -1).sum(axis=1)
        return elbo_weight(t) * found

    start = jax.random.uniform(fold_name(key, "time"))
    times = 1.0 - (jnp.arange(draws) + start) / draws  # in (0, 1]: one in each of `draws` equal parts
    return jax.lax.map(bound, (times, jax.random.split(fold_name(key, "draws"), draws)))
