"""Probes of frozen codes: how plainly they say the class, told by what simple classifiers make of them.

    linear         min over W, b    sum_i -log softmax(W x_i + b)_{y_i} + 1/2 |W|^2               (1)
    neighbours     class of x = argmax_c sum_{i in N(x)} [y_i = c] exp(cos(x, x_i) / 0.07)        (2)

(1): multinomial logistic regression, x in units of the codes' own mean and standard deviation. (1) is strictly convex
in W, so there is one answer, whatever the start, and no learning rate or number of epochs to quarrel about; full-batch
L-BFGS finds it. Probes go back to Alain & Bengio 2016 (arXiv:1610.01644).

(2): the vote of the 20 nearest by the cosine, N(x), as seen from the codes' mean. It needs no fit (Wu et al. 2018,
arXiv:1805.01978, section 3.4; 20 as DINO, Caron et al. 2021, arXiv:2104.14294). The nearest are exact, found some rows
at a time. (1) can use a direction in which codes hardly vary; (2) cannot.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mmgen_jax.evals.metrics.tiles import cosines, rows_of_pairs
from mmgen_jax.types import Array, Params

STEPS = 300  # of L-BFGS at most
SLOPE = 1e-4  # it ends where the gradient of (1), divided by the number of examples, is no longer than this
NEIGHBOURS, TEMPERATURE = 20, 0.07  # of (2)
LEAST = 1e-6  # of a standard deviation: a dimension that never changes must not be divided by zero


def fit(x: Array, y: Array, used: Array, classes: int) -> Params:
    """The probe that tells the classes y, int [N], from codes x [N, D], by the examples that are `used`, bool [N]."""
    count = jnp.maximum(used.sum(), 1)
    mean = jnp.where(used[:, None], x, 0).sum(0) / count
    std = jnp.sqrt(jnp.where(used[:, None], jnp.square(x - mean[None]), 0).sum(0) / count)
    scale = {"mean": mean, "std": jnp.maximum(std, LEAST)}

    def loss(params: Params) -> Array:  # equation (1) over the number of examples
        cross = optax.softmax_cross_entropy_with_integer_labels(logits(scale | params, x), y)
        return (jnp.where(used, cross, 0).sum() + 0.5 * jnp.square(params["kernel"]).sum()) / count

    solver = optax.lbfgs()

    def step(state: tuple[Params, Any, Array]) -> tuple[Params, Any, Array]:
        params, opt, i = state
        value, grad = optax.value_and_grad_from_state(loss)(params, state=opt)
        updates, opt = solver.update(grad, opt, params, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(params, updates), opt, i + 1

    def go_on(state: tuple[Params, Any, Array]) -> Array:
        _, opt, i = state
        slope = optax.tree.norm(optax.tree.get(opt, "grad"))
        return (i == 0) | ((i < STEPS) & (slope > SLOPE))

    begin = {"kernel": jnp.zeros((x.shape[1], classes), x.dtype), "bias": jnp.zeros(classes, x.dtype)}
    params, _, _ = lax.while_loop(go_on, step, (begin, solver.init(begin), jnp.zeros((), jnp.int32)))
    return scale | params


def logits(probe: Params, x: Array) -> Array:
    """Of every class, [N, classes], for codes x [N, D]; the largest is that of the class the probe says."""
    standard = (x - probe["mean"][None]) / probe["std"][None]
    return jnp.matmul(standard, probe["kernel"], precision="highest") + probe["bias"][None]


def vote(x: np.ndarray, known: np.ndarray, y: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Equation (2), int [N], of codes x [N, D], by the classes y, int [M], of codes `known` [M, D].

    k: the number of neighbours, or all M if there are fewer. Raises ValueError if there is none.
    """
    k = min(k, len(known))
    if k < 1:
        raise ValueError(f"k is {k}, but must be at least 1")
    said = []
    for _, rows in rows_of_pairs(x, known, cosines, known.mean(0, dtype=np.float64)):
        near = np.argpartition(rows, -k, axis=1)[:, -k:]
        votes = np.zeros((len(rows), 1 + int(y.max())))
        weights = np.exp(np.take_along_axis(rows, near, axis=1) / TEMPERATURE)
        np.add.at(votes, (np.arange(len(rows))[:, None], y[near]), weights)
        said.append(votes.argmax(1))
    return np.concatenate(said)
