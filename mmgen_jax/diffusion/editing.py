"""Making parts of something anew, or all of it a little: what a trained flow can do without further training.

Inpainting. Some values of a modality are kept, the others are made so that they fit. Whenever the network is asked,
what it is shown of those that are kept is

    x                            at t = 0, if their token is kept whole and the model has `Times(tokens=...)`      (1)
    alpha(t) x + sigma(t) eps    at t like the others, else; with one eps all the way                              (2)

With (1), which such a model has learned, what is made is a draw given those tokens. With (2), as in Song et al. 2021
(arXiv:2011.13456, imputation), it follows what is kept too little, because what was made at high noise could hardly see
it: between two Gaussians by about half with `Heun()`, by four fifths with `Renoise()`, which draws its noise anew at
every step. Symbols that are kept are never masked.

Editing. Values are noised to a time t < 1, and made from there: the larger t, the less of them is left (SDEdit, Meng et
al. 2022, arXiv:2108.01073). Symbols are masked with the probability t, and those are drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from mmgen_jax.diffusion.model import Flow
from mmgen_jax.diffusion.sampling import integrate
from mmgen_jax.modalities.given import known as modality_of
from mmgen_jax.modalities.given import n_of
from mmgen_jax.types import Array, Batch, Key, Variables


def inpaint(
    model: Flow,
    variables: Variables,
    key: Key,
    values: Mapping[str, Array],
    known: Mapping[str, Array],
    *,
    given: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The modalities of `values`, [n, *shape] each: as they are where `known` is True, made to fit elsewhere.

    known: bool [*shape] or [n, *shape] for each of them; what stands where it is False does not matter.
    given: other modalities that are seen, [n, *shape] or one example [*shape].

    Raises:
        ValueError: a name or a shape is wrong, or a mask is not bool.
    """
    batch = together(model, values, given)
    if known.keys() != values.keys():
        raise ValueError(f"known has masks of {sorted(known)}, but must have those of values, {sorted(values)}")
    masks = {name: mask_of(name, mask, batch.values[name]) for name, mask in known.items()}
    made = integrate(model, tuple(values), frozenset(given or ()), variables["params"], batch, key, kept=masks)
    return {name: jnp.where(masks[name], batch.values[name], made[name]) for name in values}


def edit(
    model: Flow,
    variables: Variables,
    key: Key,
    values: Mapping[str, Array],
    *,
    start: float = 0.6,
    given: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The modalities of `values`, [n, *shape] each, noised to the time `start` and made anew from there.

    start: from above 0, where all of them is left, to 1, where nothing is. It takes that share of `model.steps`.
    given: other modalities that are seen, [n, *shape] or one example [*shape]: a text that says what to become.

    Raises:
        ValueError: a name or a shape is wrong, `start` is not in (0, 1], or the model cannot make steps of that size.
    """
    if not 0 < start <= 1:
        raise ValueError(f"start is {start}, but must be above 0 and at most 1")
    batch = together(model, values, given)
    if model.objective.counts is not None and start * model.steps % 1:
        raise ValueError(f"start is {start}, but with {model.objective} must be a multiple of 1 / {model.steps}")
    names = frozenset(given or ())
    made = integrate(model, tuple(values), names, variables["params"], batch, key, start=float(start))
    return {name: made[name] for name in values}


def together(model: Flow, values: Mapping[str, Array], given: Mapping[str, Array] | None) -> Batch:
    """A batch in which `values` and `given` are present. Raises ValueError if they are not such as are asked for."""
    if not isinstance(model, Flow):
        raise ValueError(f"model is a {type(model).__name__}, but must be a Flow")
    if not values:
        raise ValueError("values is empty, but must have at least one modality")
    given = given or {}
    if both := sorted(values.keys() & given.keys()):
        raise ValueError(f"{both} are in values and in given, but must be in one of them")
    arrays = {name: jnp.asarray(x) for name, x in values.items()}
    n = next(iter(arrays.values())).shape[:1]
    for name, x in arrays.items():
        if x.shape != (*n, *modality_of(model.modalities, name).shape):
            shape = ("n", *model.modalities[name].shape)
            raise ValueError(f"values[{name!r}] has shape {x.shape}, but must have {shape} with the same n for all")
    parts = {name: x.astype(model.modalities[name].dtype) for name, x in arrays.items()}
    parts |= {name: n_of(modality_of(model.modalities, name), name, x, *n) for name, x in given.items()}
    nothing = {name: jnp.zeros((*n, *m.shape), m.dtype) for name, m in model.modalities.items()}
    return Batch(nothing | parts, {name: jnp.full(n, name in parts) for name in nothing})


def mask_of(name: str, mask: Array, x: Array) -> Array:
    """The mask of values x, [n, *shape], from one for each example or one for all. Raises ValueError for another."""
    mask = jnp.asarray(mask)
    if mask.dtype != bool or mask.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f"known[{name!r}] is {mask.dtype} of shape {mask.shape}, but must be bool of {x.shape[1:]} or {x.shape}"
        )
    return jnp.broadcast_to(mask, x.shape)
