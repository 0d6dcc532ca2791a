"""Which of the given modalities an output follows.

    leave one out          a_mk = D(y_m(all), y_m(all but k)) / D(y_m(all), y_m(nothing))                          (1)
    integrated gradients   g_i = (x_i - b_i) mean_s df/dx_i (b + s (x - b)),   s = (i + 1/2) / steps               (2)

y_m(S) is what a model makes of modality m given S of the others, always with the same noise; D the root mean square
difference of real values, the share of different symbols of others. (1) is 0 for what changes nothing when it is left
out, and 1 where leaving it out is as good as giving nothing. Modalities that say the same can each be left out: all
their numbers are small, though together they say everything.

(2), of Sundararajan et al. 2017 (arXiv:1703.01365), shares f(x) - f(b) out among the values of an input x: the sum of g
is that difference, up to the steps. With f = log p(y_m | x), as the model answers (`Answering`) or by its likelihood,
it says which values of what is given speak for y_m (g > 0) or against it, and summed over a modality how much all do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.evals.sampling import draw
from mmgen_jax.types import Array, Batch, Key, Likely, Model, Variables


@runtime_checkable
class Answering(Protocol):
    """A model that says how probable it makes an answer: an optional capability, asked for by `isinstance`."""

    def log_predictive(
        self, variables: Variables, batch: Batch, key: Key, of: str, draws: int | None = None
    ) -> Array: ...  # [B] in nats, of what is there of `of`, given all else that is


def leave_one_out(model: Model, variables: Variables, batch: Batch, key: Key) -> dict[tuple[str, str], float]:
    """Equation (1) by (given k, target m), over the examples of a batch; 0 where nothing given changes anything.

    What an example does not have is not given. Of two modalities there is nothing to tell: (1) is 1.
    """
    names = tuple(model.modalities)
    batch = batch.only(names)

    def made(*left: str) -> dict[str, np.ndarray]:
        there = {name: batch.present[name] & (name not in left) for name in names}
        return jax.device_get(dict(draw(model, variables, key, Batch(batch.values, there))))

    nothing, alone = made(*names), {name: made(name) for name in names}
    without = {frozenset((a, b)): made(a, b) for i, a in enumerate(names) for b in names[:i]}
    found = {}
    for target in (name for name in names if name in nothing):
        whole = alone[target][target]
        most = difference(whole, nothing[target])
        for given in (name for name in names if name != target):
            change = difference(whole, without[frozenset((given, target))][target])
            found[given, target] = change / most if most else 0.0
    return found


def difference(x: np.ndarray, y: np.ndarray) -> float:
    """D of equation (1)."""
    if np.issubdtype(x.dtype, np.integer):
        return float(np.mean(x != y))
    return float(np.sqrt(np.mean((x.astype(np.float64) - y) ** 2)))


def evidence(
    model: Answering | Likely,
    variables: Variables,
    batch: Batch,
    key: Key,
    of: str,
    *,
    steps: int = 16,
    draws: int | None = None,
) -> dict[str, Array]:
    """Equation (2) of log p(of | all others) by the real values that are given, {name: [B, *shape]} in nats.

    The baseline is the mean over the batch, of examples that have a modality. What an example lacks, and what is made
    of symbols, has no share; symbols are given all along the way. Of a model that is not `Answering` f is the
    likelihood, and shares are as noisy as its estimate.
    """
    batch = batch.only(model.modalities).masked()
    x = {name: x for name, x in batch.values.items() if name != of and jnp.issubdtype(x.dtype, jnp.floating)}

    def mean(name: str) -> Array:
        total, count = x[name].sum(0, keepdims=True), jnp.sum(batch.present[name])
        return jnp.broadcast_to(total / jnp.maximum(count, 1), x[name].shape)

    def log_p(given: dict[str, Array]) -> Array:
        whole = Batch({**batch.values, **given}, batch.present)
        if isinstance(model, Answering):
            return model.log_predictive(variables, whole, key, of, draws)
        return model.log_likelihood(variables, whole, key, (of,), draws).value

    return integrated_gradients(log_p, x, {name: mean(name) for name in x}, steps)


def integrated_gradients(function: Callable[[Any], Array], x: Any, baseline: Any, steps: int = 32) -> Any:
    """Equation (2), [B, *shape], of inputs x and baselines of that shape and a function of them -> [B].

    x may be a tree of arrays, such as a dict of modalities; so is the answer. An output may depend on its own example
    only. Raises ValueError if there is no step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, but must be at least 1")
    slope = jax.grad(lambda x: function(x).sum())

    def add(total: Any, share: Array) -> tuple[Any, None]:
        on_the_way = jax.tree.map(lambda b, x: b + share * (x - b), baseline, x)
        return jax.tree.map(jnp.add, total, slope(on_the_way)), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, x), (jnp.arange(steps) + 0.5) / steps)
    return jax.tree.map(lambda b, x, total: (x - b) * total / steps, baseline, x, total)
