"""The optimiser: every field does what it says, against numbers by hand and optax's own optimisers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmgen_jax.train.optimizer import Optimizer, decayed

PARAMS = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full((2,), 3.0)}
GRADS = {"kernel": jnp.full((2, 2), 4.0), "bias": jnp.full((2,), 3.0)}  # global norm sqrt(64 + 18)


def update(optimizer, times=1, steps=100, grads=GRADS):
    tx = optimizer.make(steps)
    state, params = tx.init(PARAMS), PARAMS
    for _ in range(times):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def close_trees(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.mark.parametrize(
    "optimizer, reference",
    [
        (Optimizer(weight_decay=0.0), optax.adamw(1e-3, weight_decay=0.0)),
        (Optimizer(b1=0.5), optax.adam(1e-3, b1=0.5)),
        (
            Optimizer(weight_decay=0.1),
            optax.adamw(1e-3, weight_decay=0.1, mask={"kernel": True, "bias": False}),
        ),
        (
            Optimizer(name="lion", b2=0.99, weight_decay=0.1),
            optax.lion(1e-3, weight_decay=0.1, mask={"kernel": True, "bias": False}),
        ),
        (Optimizer(name="sgd"), optax.sgd(1e-3, momentum=0.9)),
        (Optimizer(name="sgd", b1=0.0), optax.sgd(1e-3)),
    ],
)
def test_each_name_equals_the_optimiser_of_optax(optimizer, reference):
    state, params = reference.init(PARAMS), PARAMS
    for _ in range(3):
        updates, state = reference.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    close_trees(update(optimizer, times=3), params)


def test_clip_bounds_the_norm_of_the_update():
    sgd = Optimizer(name="sgd", b1=0.0, learning_rate=1.0, clip=0.5)
    change = jax.tree.map(lambda a, b: a - b, PARAMS, update(sgd))
    np.testing.assert_allclose(optax.tree.norm(change), 0.5, rtol=1e-6)
    np.testing.assert_allclose(change["kernel"] / change["bias"][0], 4 / 3, rtol=1e-6)  # the direction is kept
    loose = dataclasses.replace(sgd, clip=100.0)
    np.testing.assert_allclose(optax.tree.norm(jax.tree.map(lambda a, b: a - b, PARAMS, update(loose))), np.sqrt(82))


def test_accumulated_gradients_are_one_update_by_their_mean():
    plain = Optimizer(name="sgd", b1=0.0, learning_rate=0.1)
    four = dataclasses.replace(plain, accumulate=4, clip=1.0)
    close_trees(update(four, times=3), PARAMS)
    close_trees(update(four, times=4), update(dataclasses.replace(plain, clip=1.0)))


def test_schedules_count_training_steps_whatever_is_accumulated():
    """Two updates at steps 0 and 2 of a line from 1 to 0 over 4 steps: rates 1 and 1/2."""
    line = Optimizer(name="sgd", b1=0.0, learning_rate=1.0, schedule="linear", accumulate=2)
    change = PARAMS["bias"] - update(line, times=4, steps=4)["bias"]
    np.testing.assert_allclose(change, 3.0 * 1.5, rtol=1e-6)


@pytest.mark.parametrize(
    "fields, expected",
    [
        (dict(), {0: 1, 50: 1, 100: 1}),
        (dict(schedule="linear"), {0: 1, 50: 0.5, 100: 0}),
        (dict(schedule="cosine"), {0: 1, 50: 0.5, 100: 0}),
        (dict(warmup=20), {0: 0.05, 9: 0.5, 19: 1, 20: 1, 100: 1}),
        (dict(warmup=20, schedule="cosine"), {0: 0.05, 19: 1, 20: 1, 60: 0.5, 100: 0}),
        (dict(warmup=1, schedule="linear"), {0: 1, 1: 1, 100: 0}),
        (dict(schedule="linear", final=0.5), {0: 1, 50: 0.625, 100: 0.25, 120: 0.25}),
        (dict(schedule="cosine", final=0.5), {0: 1, 50: 0.625, 100: 0.25, 120: 0.25}),
    ],
)
def test_learning_rates(fields, expected):
    rate = Optimizer(learning_rate=2.0, **fields).rate(100)
    for step, fraction in expected.items():
        np.testing.assert_allclose(rate(step), 2.0 * fraction, atol=1e-6)


def test_decay_spares_vectors_and_whatever_is_called_bias_or_scale():
    stack = {"kernel": jnp.ones((3, 4, 4)), "bias": jnp.ones((3, 4)), "scale": jnp.ones((3, 4))}
    params = {"dense": PARAMS, "stack": stack}
    assert decayed(params) == {
        "dense": {"kernel": True, "bias": False},
        "stack": {"kernel": True, "bias": False, "scale": False},
    }


def test_moments_have_the_paths_of_the_parameters():
    """Sharding rules are found in paths: a rule for `kernel` must find the moments of every kernel too."""
    for optimizer in (Optimizer(clip=1.0, weight_decay=0.1), Optimizer(name="sgd"), Optimizer(accumulate=2)):
        state = optimizer.make(10).init(PARAMS)
        leaves = jax.tree_util.tree_flatten_with_path(state)[0]
        arrays = [jax.tree_util.keystr(path, simple=True, separator="/") for path, x in leaves if x.ndim == 2]
        assert arrays and all(path.endswith("/kernel") for path in arrays)


@pytest.mark.parametrize(
    "fields, text",
    [
        (dict(name="adagrad"), r"optimizer.name is 'adagrad', but must be one of \('adamw', 'lion', 'sgd'\)"),
        (dict(learning_rate=0.0), "optimizer.learning_rate is 0.0, but must be more than 0"),
        (dict(learning_rate=float("nan")), "optimizer.learning_rate is nan"),
        (dict(schedule="step"), "optimizer.schedule is 'step', but must be one of"),
        (dict(final=0.1), r"optimizer.final is 0.1, but must be in \[0, learning_rate = 0.001\]"),
        (dict(warmup=-1), "optimizer.warmup is -1"),
        (dict(weight_decay=-0.1), "optimizer.weight_decay is -0.1"),
        (dict(clip=0.0), "optimizer.clip is 0.0, but must be None or more than 0"),
        (dict(accumulate=0), "optimizer.accumulate is 0, but must be at least 1"),
        (dict(b1=1.0), r"optimizer.b1 is 1.0, but must be in \[0, 1\)"),
        (dict(b2=-0.1), "optimizer.b2 is -0.1"),
        (dict(ema=1.0), "optimizer.ema is 1.0"),
    ],
)
def test_fields_out_of_range_are_refused(fields, text):
    with pytest.raises(ValueError, match=text):
        Optimizer(**fields)


def test_a_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(ValueError, match="optimizer.warmup is 10, but must be less than steps = 10"):
        Optimizer(warmup=10).make(10)
