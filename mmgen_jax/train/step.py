"""From a loss to a compiled training step.

    L(params) = mean over the batch of loss_i(params)                          (1)
    params   <- params + tx(grad L)                                            (2)
    ema      <- d ema + (1 - d) params,   d = min(decay, (1 + t) / (10 + t))   (3)

The mean in (1) is taken here and nowhere else. The same functions serve two ways of using several devices. Under
`jax.jit` with sharded arrays the batch is one global array and a mean is a mean. Under `jax.shard_map` every device
runs the step on its own rows, and the mean goes over the devices as well. That mean must be inside what is
differentiated: there, `grad(pmean(loss))` is right, and `pmean(grad(loss))` is too large by the number of devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from mmgen_jax.materialized import compiler_options
from mmgen_jax.rng import step_key
from mmgen_jax.train.mesh import replicated
from mmgen_jax.types import Array, Batch, Key, Metrics, Model, Params, Stats, TrainState

# loss(params, stats, batch, key) -> (loss of every example [B], (new stats, metrics: [B] or scalars))
Loss = Callable[[Params, Stats, Batch, Key], tuple[Array, tuple[Stats, Mapping[str, Array]]]]
# steps(state, resident, inputs, count) -> (state, metrics): see `make_steps`
Steps = Callable[[TrainState, Batch | None, Any, Array], tuple[TrainState, Metrics]]


def device_axes(tree: Any) -> tuple[str, ...]:
    """The mesh axes along which devices hold different values of `tree`; none outside `jax.shard_map`."""
    return tuple(sorted(set().union(*(jax.typeof(x).manual_axis_type.varying for x in jax.tree.leaves(tree)))))


def device_mean(x: Array) -> Array:
    """The mean over devices that hold different values of `x`; `x` itself where all hold the same."""
    axes = device_axes(x)
    return lax.pmean(x, axes) if axes else x


def batch_mean(per_example: Array) -> Array:
    """The mean over all examples `[B]` of the global batch, wherever its rows are. A scalar."""
    return device_mean(jnp.mean(per_example))


def gradient_step(
    loss: Loss, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
) -> tuple[TrainState, Metrics]:
    """One update of all parameters by the gradient of the mean of `loss`: the whole `step` of most models.

    `loss(params, stats, batch, key)` returns `(per_example, (stats, metrics))`: one number per example `[B]`, the new
    non-gradient collections (return the `stats` it was given if it has none) and a dict of further numbers to log,
    `[B]` or scalars. The batch it sees is `masked()`: values that are not present are zero. Models with several
    losses write their own step from `batch_mean` and `device_mean`.

    Returns the state after the step and the metrics, all scalars, with `loss` and `grad_norm` (before clipping) added.
    """
    batch = batch.masked()

    def mean_loss(params: Params) -> tuple[Array, tuple[Stats, Mapping[str, Array]]]:
        per_example, aux = loss(params, state.stats, batch, key)
        return batch_mean(per_example), aux

    (value, (stats, metrics)), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state.replace(step=state.step + 1, params=params, stats=jax.tree.map(device_mean, stats), opt=opt)
    return state, {"loss": value, "grad_norm": optax.tree.norm(grads), **jax.tree.map(batch_mean, dict(metrics))}


def averaged(state: TrainState, decay: float) -> TrainState:
    """Equation (3) with t = `state.step`: the average follows quickly at first and slowly later."""
    step = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return state.replace(ema=optax.incremental_update(state.params, state.ema, rate))


def device_key(key: Key, batch: Batch) -> Key:
    """`key`, different on devices that hold different rows, so that these do not share their noise."""
    for axis in device_axes(batch):
        key = jax.random.fold_in(key, lax.axis_index(axis))
    return key


def make_steps(model: Model, tx: optax.GradientTransformation, *, seed: int, ema: float = 0.0) -> Steps:
    """`steps(state, resident, inputs, count)`: the `count` next steps of training, to be compiled as one program.

    `inputs` holds what up to k steps need along its leading axis: `[k, B]` indices into the examples of `resident` or,
    with `resident` None, a Batch with leaves `[k, B, ...]`. `count` is an int32 array. A loop that ends early, instead
    of a second program for fewer steps, is compiled once, and gives the same bits however steps are cut into calls.

    The metrics are those of the last step, and `step`, its number. The loop ends early at a step whose metrics are not
    all finite, so these then name the very step that failed.
    """

    @jax.jit  # traced once for the two uses below; it disappears in the compiled program
    def one(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = device_key(step_key(seed, "train", state.step), batch)
        state, metrics = model.step(tx, state, batch, key)
        metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
        return (averaged(state, ema) if ema else state), metrics

    def steps(state: TrainState, resident: Batch | None, inputs: Any, count: Array) -> tuple[TrainState, Metrics]:
        def batch_at(i: Array) -> Batch:
            row = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), inputs)
            return row if resident is None else resident.take(row)

        def go_on(carry: tuple[Array, TrainState, Metrics]) -> Array:
            i, _, metrics = carry
            return (i < count) & jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))))

        def body(carry: tuple[Array, TrainState, Metrics]) -> tuple[Array, TrainState, Metrics]:
            i, state, _ = carry
            return i + 1, *one(state, batch_at(i))

        start = jnp.zeros((), jnp.int32)
        _, shapes = jax.eval_shape(lambda: one(state, batch_at(start)))
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        _, state, metrics = lax.while_loop(go_on, body, (start, state, nothing))
        return state, {**metrics, "step": state.step}

    return steps


def partitioned(steps: Steps, state: TrainState, stacked: NamedSharding) -> Any:
    """`steps` under jit on global arrays: the compiler splits the work as the arrays are. The state is donated."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    outputs = (shardings, replicated(stacked.mesh))
    return jax.jit(steps, donate_argnums=0, out_shardings=outputs, compiler_options=compiler_options())


def per_device(steps: Steps, state: TrainState, stacked: NamedSharding) -> Any:
    """`steps` on every device by itself, with its own rows and a whole copy of the state. The state is donated."""
    whole = PartitionSpec()
    local = jax.shard_map(steps, mesh=stacked.mesh, in_specs=(whole, whole, stacked.spec, whole), out_specs=whole)
    return partitioned(local, state, stacked)
