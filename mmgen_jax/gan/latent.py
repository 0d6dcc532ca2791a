"""What can be done with the noise that a trained generator makes things of.

    truncated    F^-1(F(-t) + (F(t) - F(-t)) F(z)),     F the normal distribution's function                    (1)
    directions   the left singular vectors of the first layer's kernel [Z, D], the largest first                (2)
    projected    argmin_z sum_m mean d(y_m(z), x_m),    d(y, x) = (y - x)^2, of symbols -log y_x                (3)

(1) is a normal number that is never beyond t, the truncation of Brock et al. 2019 (arXiv:1809.11096): less variety,
each example more typical. Every z has its own, so the same noise can be looked at with one t after another. (2) SeFa,
Shen and Zhou 2021, arXiv:2007.06600: steps that change most of what the first layer says. (3) goes back from real
examples to noise (Zhu et al. 2016, arXiv:1609.03552), by Adam from noise that is drawn; m runs over whatever is given,
and what the same noise makes of the other modalities is an answer too. The minimum need not be the only one.

    noise = model.drawn(key, 16)
    made = mm.gan.from_noise(model, state.variables, jax.tree.map(lambda z: mm.gan.truncated(z, 1.0), noise))
    noise, away = mm.gan.projected(model, state.variables, key, 16, given={"image": picture})    # 16 attempts
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jax.scipy.special import ndtr, ndtri

from mmgen_jax.gan.generator import SHARED
from mmgen_jax.gan.model import GAN, generate
from mmgen_jax.gan.relaxed import is_symbolic, relaxed
from mmgen_jax.modalities.given import answered, batch_of
from mmgen_jax.types import Array, Batch, Key, Modality, Variables

SMALL = 1e-12  # of probabilities whose logarithms are taken


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


def projected(
    model: GAN,
    variables: Variables,
    key: Key,
    n: int,
    *,
    given: Mapping[str, Array] | Batch,
    steps: int = 500,
    rate: float = 0.1,
) -> tuple[dict[str, Array], Array]:
    """Equation (3): the noise of n examples, as `GAN.drawn` has it, and what is left of the sum, [n].

    given: as for `GAN.sample`; one example is looked for n times, from different beginnings.
    rate: of Adam at the first of so many steps, from which it falls to 0 along a cosine.

    Raises ValueError if nothing is given, a name is no modality, a shape is wrong, or steps or rate is not above 0.
    """
    for field, value in {"steps": steps, "rate": rate}.items():
        if not value > 0:
            raise ValueError(f"{field} is {value}, but must be more than 0")
    if not isinstance(given, Batch) and not given:
        raise ValueError(f"given is {given!r}, but must have at least one of {list(model.modalities)}")
    return descended(model, steps, variables, batch_of(model.modalities, n, given), model.drawn(key, n), rate)


@functools.partial(jax.jit, static_argnames=("model", "steps"))
def descended(
    model: GAN, steps: int, variables: Variables, batch: Batch, noise: Mapping[str, Array], rate: float
) -> tuple[dict[str, Array], Array]:
    """`projected` of what is present in a batch, from this noise, as one program."""
    batch, nothing = batch.masked(), Batch.nothing(model.modalities, len(batch))
    weights = model.used("generator", variables["params"]["generator"], variables)
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def left(noise: Mapping[str, Array]) -> Array:
        made = model.made(weights, noise, nothing)
        away = {name: distance(m, made[name], batch.values[name]) for name, m in model.modalities.items()}
        return sum(jnp.where(batch.present[name], x, 0) for name, x in away.items())

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        noise, opt = carry
        # Examples do not see one another: the gradient of the sum is each one's own.
        updates, opt = adam.update(jax.grad(lambda z: left(z).sum())(noise), opt)
        return (optax.apply_updates(noise, updates), opt), None

    (noise, _), _ = jax.lax.scan(step, (noise, adam.init(noise)), length=steps)
    return noise, left(noise)


def distance(modality: Modality, y: Array, x: Array) -> Array:
    """d of (3), averaged over all values: made ones as critics see them, real ones [B, *shape] as data: [B]."""
    x = relaxed(modality, x, 0.0)
    values = -(x * jnp.log(y + SMALL)).sum(-1) if is_symbolic(modality) else (y - x) ** 2
    return values.reshape(len(x), -1).mean(1)
