"""What can be done with the noise that a trained generator makes things of.

    truncated    F^-1(F(-t) + (F(t) - F(-t)) F(z)),     F the normal distribution's function                    (1)
    directions   the left singular vectors of the first layer's kernel [Z, D], the largest first                (2)

(1) is a normal number that is never beyond t, the truncation of Brock et al. 2019 (arXiv:1809.11096): less variety,
each example more typical. Every z has its own, so the same noise can be looked at with one t after another. (2) SeFa,
Shen and Zhou 2021, arXiv:2007.06600: steps that change most of what the first layer says.

    noise = model.drawn(key, 16)
    made = mm.gan.from_noise(model, state.variables, jax.tree.map(lambda z: mm.gan.truncated(z, 1.0), noise))
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from mmgen_jax.gan.generator import SHARED
from mmgen_jax.gan.model import GAN, generate
from mmgen_jax.modalities.given import answered
from mmgen_jax.types import Array, Batch, Variables


def from_noise(
    model: GAN,
    variables: Variables,
    noise: Mapping[str, Array],
    *,
    given: Mapping[str, Array] | Batch | None = None,
    targets: tuple[str, ...] | None = None,
) -> dict[str, Array]:
    """What `GAN.sample` makes when this is the noise that it draws (`GAN.drawn`); all else as there."""

    def make(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
        return generate(model, wanted, variables, batch, noise)

    return answered(model.modalities, model.makes, len(noise[SHARED]), given, targets, make)


def truncated(z: Array, threshold: float) -> Array:
    """Equation (1) of normal numbers of any shape."""
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}, but must be more than 0")
    low, high = ndtr(-threshold), ndtr(threshold)
    return jnp.clip(ndtri(low + (high - low) * ndtr(z)), -threshold, threshold)


def directions(kernel: Array, count: int) -> tuple[Array, Array]:
    """Equation (2) of a kernel [Z, D]: directions of length one, [count, Z], and how much each changes, [count].

    Which of its two ways a direction points is arbitrary: here, its largest number is positive. Kernels of several
    first layers go side by side.
    """
    if not 1 <= count <= min(kernel.shape):
        raise ValueError(f"count is {count}, but must be in 1..{min(kernel.shape)}")
    u, s, _ = jnp.linalg.svd(kernel, full_matrices=False)
    found = u.T[:count]
    largest = jnp.take_along_axis(found, jnp.abs(found).argmax(1)[:, None], axis=1)
    return found * jnp.sign(largest), s[:count]
