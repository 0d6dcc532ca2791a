"""The doors that all families share: what is given, what is wanted or scored, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmgen_jax.types import Array, Batch, Estimate, Modality

# (the modalities to make, a batch of what is given) -> the modalities made, [n, *shape] each
Make = Callable[[tuple[str, ...], Batch], dict[str, Array]]


def answered(
    modalities: Mapping[str, Modality],
    makes: tuple[str, ...],
    n: int,
    given: Mapping[str, Array] | Batch | None,
    targets: tuple[str, ...] | None,
    make: Make,
) -> dict[str, Array]:
    """n examples of `targets` (default `makes`: all that the model can make), [n, *shape] each.

    given: nothing; some modalities, each [n, *shape] or one example [*shape]; or a Batch of n examples, each with the
        modalities that are present in it: then one compiled program serves every set of them. What is given comes back
        unchanged, and is never made.

    Raises:
        ValueError: a name is no modality, one is wanted that the model cannot make and that is not given, or what is
            given has the wrong shape.
    """
    targets = makes if targets is None else targets
    returned = () if given is None or isinstance(given, Batch) else tuple(given)
    for name in targets:
        known(modalities, name)
        if name not in (*makes, *returned):
            others = [other for other in modalities if other not in makes]
            possible = f"{', '.join(map(repr, makes))}, given any of {others}"
            raise ValueError(f"{name!r} cannot be made: this model makes only {possible}")
    batch = batch_of(modalities, n, given)
    if isinstance(given, Batch):
        return batch.completed(make(targets, batch))
    wanted = tuple(name for name in modalities if name in targets and name not in returned)
    together = {**make(wanted, batch), **{name: batch.values[name] for name in returned}}
    return {name: together[name] for name in modalities if name in together}


def batch_of(modalities: Mapping[str, Modality], n: int, given: Mapping[str, Array] | Batch | None) -> Batch:
    """n examples of which that is present which is given, as `answered` takes it.

    Raises ValueError if a name is no modality, or what is given has the wrong shape.
    """
    if isinstance(given, Batch):
        if given.values.keys() != modalities.keys() or len(given) != n:
            raise ValueError(
                f"given is a batch of {len(given)} with {list(given.values)}, but must have all of "
                f"{list(modalities)} and {n} examples"
            )
        return given
    parts = {name: n_of(known(modalities, name), name, x, n) for name, x in (given or {}).items()}
    nothing = {name: np.zeros((n, *modality.shape), modality.dtype) for name, modality in modalities.items()}
    return Batch(nothing | parts, {name: np.full(n, name in parts) for name in modalities})


def chained(
    modalities: Mapping[str, Modality], batch: Batch, of: tuple[str, ...], score: Callable[[Batch, str], Estimate]
) -> Estimate:
    """log p of the modalities `of` together, one after another: log p(a, b | c) = log p(a | c) + log p(b | a, c).

    score: (batch, name) -> log p of one modality, given the others that are present; 0 where it is not there itself.

    Raises:
        ValueError: a name is no modality.
    """
    batch = batch.only(modalities)
    value = variance = jnp.zeros(len(batch))
    for i, name in enumerate(of):
        known(modalities, name)
        there = {other: present & (other not in of[i + 1 :]) for other, present in batch.present.items()}
        one = score(Batch(batch.values, there), name)
        value, variance = value + one.value, variance + one.error**2
    return Estimate(value, jnp.sqrt(variance))


def known(modalities: Mapping[str, Modality], name: str) -> Modality:
    """The modality of that name. Raises ValueError if there is none."""
    if name not in modalities:
        raise ValueError(f"{name!r} is no modality of this model, which has {list(modalities)}")
    return modalities[name]


def n_of(modality: Modality, name: str, x: Any, n: int) -> Array:
    """[n, *shape] from one example or n. Raises ValueError for another shape."""
    x = jnp.asarray(x)
    if x.shape not in (modality.shape, (n, *modality.shape)):
        raise ValueError(
            f"given[{name!r}] has shape {x.shape}, but must have {modality.shape} or {(n, *modality.shape)}"
        )
    return jnp.broadcast_to(x, (n, *modality.shape)).astype(modality.dtype)
