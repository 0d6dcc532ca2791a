"""What the report shows of why a model gives the answer that it gives: which values of what it sees speak for it.

    g_i of equation (2) in `evals/attribution.py`, of f(x) = log p(label | x),   x all real values there are      (1)

Texts and other symbols are hidden, as they would say the label by themselves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.evals.attribution import evidence
from mmgen_jax.evals.likelihood import scored
from mmgen_jax.types import Array, Batch, Key, Likely, Model, Variables

EXAMPLES = 3  # that are shown
DRAWS = 20  # of codes, where the likelihood is an estimate
ROWS, COLUMNS = 32, 64  # of a map, at most


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Of the first examples: (1) by modality [n, *shape], in nats, of the label `of`."""

    of: str
    shares: Mapping[str, np.ndarray]


def weigh(model: Model, variables: Variables, examples: Batch, key: Key) -> Evidence | None:
    """(1) of a model, the baseline being the mean of the examples; None without a likelihood of a label, or an x."""
    labels = [name for name in scored(model) if symbolic(model, name) and model.modalities[name].shape == ()]
    real = [name for name in model.modalities if not symbolic(model, name)]
    if not (isinstance(model, Likely) and labels and real):
        return None
    there = {name: x & (name in (labels[0], *real)) for name, x in examples.present.items()}
    seen = jax.tree.map(jnp.asarray, Batch(examples.values, there))
    try:
        jax.eval_shape(lambda batch: model.log_likelihood(variables, batch, key, (labels[0],), DRAWS), seen)
    except ValueError:  # in this form the model has none after all
        return None
    found = explained(model, variables, seen, key, labels[0])
    shares = {name: np.asarray(x)[:EXAMPLES] for name, x in found.items()}
    shares = {name: x for name, x in shares.items() if x.any()}  # nothing goes through what has been made symbols
    return Evidence(labels[0], shares) if shares else None


def symbolic(model: Model, name: str) -> bool:
    """Whether a modality is made of symbols."""
    return not np.issubdtype(model.modalities[name].dtype, np.floating)


@functools.partial(jax.jit, static_argnums=(0, 4))
def explained(model: Likely, variables: Variables, batch: Batch, key: Key, of: str) -> dict[str, Array]:
    """`evidence`, compiled."""
    return evidence(model, variables, batch, key, of, draws=DRAWS)


def as_map(shares: np.ndarray) -> np.ndarray:
    """Shares [numbers] or [*space, channels] summed to [rows, columns], so few that they can be drawn.

    Of clips all frames are added up; what has one axis is one row.
    """
    x = shares.sum(-1) if shares.ndim > 1 else shares
    x = x.reshape(1, -1) if x.ndim < 2 else x.reshape(-1, *x.shape[-2:]).sum(0)
    for axis, most in enumerate((ROWS, COLUMNS)):
        starts = np.linspace(0, x.shape[axis], min(x.shape[axis], most), endpoint=False).astype(int)
        x = np.add.reduceat(x, starts, axis=axis)
    return x
