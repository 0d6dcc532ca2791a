"""What critics are shown instead of the examples, so that few data last longer: real and made ones changed alike.

    brightness    x + u - 1/2                                              u ~ U(0, 1), one for each example      (1)
    saturation    (x - m) 2 u + m,        m the mean over channels of a pixel                                    (2)
    contrast      (x - m) (u + 1/2) + m,  m the mean over all of the example                                     (3)
    translation   out[p] = x[p + s],      |s| up to 1/8 of each axis, zero where nothing is                       (4)
    cutout        zero in a block of half of each axis, around a random place                                    (5)

DiffAugment (Zhao et al. 2020, arXiv:2006.10738), in this order. A clip is changed alike in all of its frames; a sound
is moved and cut along time only, and has no channels to saturate.

    p <- max(0, p + sign(r - target) batch interval / (1000 kimg)),   r = mean sign D(x) since the last time     (6)

ADA (Karras et al. 2020, arXiv:2006.06676, section 3): an example is changed with probability p, which rises while the
critic is too sure of the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.rng import fold_name
from mmgen_jax.train.step import batch_mean
from mmgen_jax.types import Array, Key

REACH, HOLE = 0.125, 0.5  # of an axis: how far (4) goes, how large (5) is
AXES = {2: (0,), 3: (0, 1), 4: (1, 2)}  # of sounds [frames, mels], pictures [H, W, C] and clips [F, H, W, C]


@flax.struct.dataclass
class Draws:
    """The randomness of one example: u of (1) to (3), shift and centre of (4) and (5) for each axis of space."""

    brightness: Array
    saturation: Array
    contrast: Array
    shift: tuple[Array, ...]
    centre: tuple[Array, ...]


def draws(key: Key, shape: tuple[int, ...]) -> Draws:
    """Those for an example of that shape."""
    colours = jax.random.uniform(fold_name(key, "colours"), (3,))
    shift, centre = [], []
    for axis in AXES[len(shape)]:
        n, own = shape[axis], jax.random.fold_in(key, axis)
        most = int(REACH * n + 0.5)
        shift.append(jax.random.randint(fold_name(own, "shift"), (), -most, most + 1))
        even = 1 - int(HOLE * n + 0.5) % 2  # the middle of an even hole lies between two places
        centre.append(jax.random.randint(fold_name(own, "centre"), (), 0, n + even))
    return Draws(*colours, tuple(shift), tuple(centre))


def brightness(x: Array, u: Array) -> Array:
    """Equation (1)."""
    return x + u - 0.5


def saturation(x: Array, u: Array) -> Array:
    """Equation (2) of x [..., C]."""
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * (2 * u) + mean


def contrast(x: Array, u: Array) -> Array:
    """Equation (3) of one example."""
    return (x - x.mean()) * (u + 0.5) + x.mean()


def translation(x: Array, shift: tuple[Array, ...]) -> Array:
    """Equation (4) of one example, along its axes of space."""
    for axis, s in zip(AXES[x.ndim], shift, strict=True):
        where = jnp.arange(x.shape[axis]) + s
        inside = along((where >= 0) & (where < x.shape[axis]), axis, x.ndim)
        x = jnp.where(inside, jnp.take(x, where, axis=axis, mode="clip"), 0)
    return x


def cutout(x: Array, centre: tuple[Array, ...]) -> Array:
    """Equation (5) of one example, along its axes of space."""
    hole = jnp.ones((), bool)
    for axis, c in zip(AXES[x.ndim], centre, strict=True):
        size = int(HOLE * x.shape[axis] + 0.5)
        away = jnp.arange(x.shape[axis]) - (c - size // 2)
        hole &= along((away >= 0) & (away < size), axis, x.ndim)
    return jnp.where(hole, 0, x)


def along(mask: Array, axis: int, ndim: int) -> Array:
    """A mask [n] of the places on an axis, as one that broadcasts to all `ndim` axes."""
    return mask.reshape(tuple(-1 if i == axis else 1 for i in range(ndim)))


def changed(x: Array, d: Draws) -> Array:
    """All of (1) to (5) on one example."""
    x = brightness(x, d.brightness)
    x = saturation(x, d.saturation) if x.ndim > 2 else x
    return cutout(translation(contrast(x, d.contrast), d.shift), d.centre)


@dataclasses.dataclass(frozen=True)
class DiffAugment:
    """The changes (1) to (5) of the modalities `names`, real values; the same key changes all alike.

    names: of sounds as spectrograms, pictures or clips.
    """

    names: tuple[str, ...]

    def __call__(self, key: Key, example: Mapping[str, Array], share: Array | float = 1.0) -> dict[str, Array]:
        """example: [B, *shape] by modality; each row is changed with the probability `share`.

        Raises:
            ValueError: a modality is neither sound nor picture nor clip.
        """
        return {name: self._of(name, key, x, share) if name in self.names else x for name, x in example.items()}

    def _of(self, name: str, key: Key, x: Array, share: Array | float) -> Array:
        if x.ndim - 1 not in AXES:
            raise ValueError(f"DiffAugment: {name!r} is of shape {x.shape[1:]}, but must be a sound, picture or clip")

        def one(x: Array, key: Key) -> Array:
            chosen = jax.random.uniform(fold_name(key, "whether")) < share
            return jnp.where(chosen, changed(x, draws(key, x.shape)), x)

        return jax.vmap(one)(x, jax.random.split(fold_name(key, name), len(x)))


@flax.struct.dataclass
class Probability:
    """p of equation (6), the sum of sign D(x) since it was last changed, and the number of updates since then."""

    p: Array
    signs: Array
    updates: Array


@dataclasses.dataclass(frozen=True)
class ADA:
    """Equation (6).

    Attributes:
        target: of r.
        interval: updates of the critics from one change of p to the next.
        kimg: thousands of examples in which p can go from 0 to 1.

    Raises:
        ValueError: a field is outside its range.
    """

    target: float = 0.6
    interval: int = 4
    kimg: float = 500.0

    def __post_init__(self) -> None:
        for field, fits, what in (
            ("target", -1 < self.target < 1, "in (-1, 1)"),
            ("interval", self.interval >= 1, "at least 1"),
            ("kimg", self.kimg > 0, "above 0"),
        ):
            if not fits:
                raise ValueError(f"ADA: {field} is {getattr(self, field)}, but must be {what}")

    def start(self) -> Probability:
        """Nothing is changed at first."""
        return Probability(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def after(self, state: Probability, real: Array, batch: int) -> Probability:
        """After an update in which the critic gave the values `real` [B] to the data.

        batch: examples in an update, on all devices.
        """
        signs, updates = state.signs + batch_mean(jnp.sign(real)), state.updates + 1
        due = updates >= self.interval
        by = jnp.sign(signs / updates - self.target) * (batch * self.interval / (1000 * self.kimg))
        p = jnp.where(due, jnp.maximum(state.p + by, 0), state.p)
        return Probability(p, jnp.where(due, 0, signs), jnp.where(due, 0, updates))
