"""Expectation-maximisation of a mixture of Gaussians with full covariances (Dempster et al. 1977).

    r_kn = w_k N(x_n; m_k, C_k) / sum_j w_j N(x_n; m_j, C_j)                                             (1)
    w_k = mean_n r_kn,  m_k = sum_n r_kn x_n / sum_n r_kn,  S_k = the covariance of x weighted by r_k    (2)
    C_k = V max(E, floor) V^T  where  S_k = V E V^T                                                      (3)

Among covariances without an eigenvalue below `floor`, (3) is the most likely one, as S_k is among all (Ingrassia &
Rocci 2007, doi:10.1016/j.csda.2006.10.011): no component can collapse, and still no step lowers the likelihood, which
it may where a constant is added to the diagonal instead. Covariances are kept as principal axes V and log-variances
along them. So a density takes no solver, and nothing can fail in float32 as the Cholesky factor of a thin covariance.

A mixture is a dict: log_weight [K], mean [K, D], axes [K, D, D] in columns, log_var [K, D]. What runs over components
does one after the other, so that memory holds N D numbers rather than K N D.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.latent import Gaussian

LEAST = 1e-20  # examples of a component: one that has lost them all must not be divided by zero
product = functools.partial(jnp.matmul, precision="highest")  # accelerators round float32 products otherwise


def log_joint(mixture: Params, x: Array) -> Array:
    """log w_k + log N(x; m_k, C_k) in nats, [K, ...] for x [..., D]."""

    def one(component: Params) -> Array:
        def at(x: Array) -> Array:
            along = Gaussian(jnp.zeros_like(component["log_var"]), component["log_var"])
            return component["log_weight"] + along.log_prob(product(x - component["mean"], component["axes"]))

        return jnp.vectorize(at, signature="(d)->()")(x)

    return lax.map(one, mixture)


def draw(mixture: Params, key: Key, n: int) -> Array:
    """n samples [n, D]."""
    choice_key, noise_key = jax.random.split(key)
    chosen = jax.random.categorical(choice_key, mixture["log_weight"], shape=(n, 1))
    noise = jax.random.normal(noise_key, (n, mixture["mean"].shape[1]), mixture["mean"].dtype)

    def add(x: Array, component: tuple[Array, Params]) -> tuple[Array, None]:
        k, parts = component
        along = noise * jnp.exp(0.5 * parts["log_var"])[None]
        return jnp.where(chosen == k, parts["mean"][None] + product(along, parts["axes"].T), x), None

    # Every component draws all n, and those that chose it are kept: to gather each one's axes would take n D^2 numbers.
    return lax.scan(add, jnp.zeros_like(noise), (jnp.arange(len(mixture["mean"])), mixture))[0]


def step(mixture: Params, x: Array, floor: float) -> tuple[Params, Array]:
    """Equations (1) to (3) on x [N, D]: the new mixture, and the mean log-likelihood of the old one in nats."""
    joint = log_joint(mixture, x)
    total = jax.nn.logsumexp(joint, axis=0)

    def component(r: Array) -> Params:
        count = jnp.maximum(r.sum(), LEAST)
        mean = product(r, x) / count
        away = x - mean[None]
        return {
            "log_weight": jnp.log(count / len(x)),
            "mean": mean,
            **principal(product((r[:, None] * away).T, away) / count, floor),
        }

    return lax.map(component, jnp.exp(joint - total[None])), total.mean()


def start(key: Key, x: Array, components: int, floor: float) -> Params:
    """Means by k-means++ (Arthur & Vassilvitskii 2007), with the covariance inside all clusters together.

    Every mean is one of x [N, D], drawn in proportion to its squared distance to the nearest before it. A covariance
    of its own would make a spike of a cluster of few points.
    """
    keys = jax.random.split(key, components)
    first = x[jax.random.randint(keys[0], (), 0, len(x))]

    def add(away: Array, key: Key) -> tuple[Array, Array]:  # away: of every x, from the nearest mean so far
        square = jnp.square(away).sum(1)
        mean = x[jax.random.categorical(key, jnp.log(square))]
        new = x - mean[None]
        return jnp.where((jnp.square(new).sum(1) < square)[:, None], new, away), mean

    away, others = lax.scan(add, x - first[None], keys[1:])
    common = {"log_weight": jnp.full((), -math.log(components), x.dtype)}
    common |= principal(product(away.T, away) / len(x), floor)
    spread = {name: jnp.broadcast_to(y, (components, *y.shape)) for name, y in common.items()}
    return {"mean": jnp.concatenate([first[None], others]), **spread}


def principal(covariance: Array, floor: float) -> Params:
    """Equation (3): axes [D, D] and log-variances [D] along them."""
    values, axes = jnp.linalg.eigh(covariance)
    return {"axes": axes, "log_var": jnp.log(jnp.maximum(values, floor))}
