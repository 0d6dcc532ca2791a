"""Objectives that learn long steps: MeanFlow from a derivative, Shortcut from two steps of half the size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.diffusion import DDPM, Euler, Flow, FlowMatching, MeanFlow, Shortcut, Times, UniformTimes
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.types import Batch, TrainState

RNG = np.random.default_rng(0)
TINY = Flow(
    modalities={"a": Vector(2), "label": Label(3)}, width=16, joint=0, depth=1, heads=2, sampler=Euler(), steps=1
)
FEW = [MeanFlow(), Shortcut()]


def no_teacher(values, t, spans):
    raise AssertionError("nothing is bootstrapped here")


def wave(values, t, spans):
    """A network of one modality that everything matters to."""
    return {"a": jnp.sin(values["a"]) * t["a"][:, None] + spans["a"][:, None]}, None


def times(factor, network):
    """Another network, whose output is larger by a factor."""
    return lambda *inputs: ({"a": factor * network(*inputs)[0]["a"]}, None)


def test_mean_flow_without_spans_is_flow_matching_up_to_its_weight():
    x, v = ({"a": jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)} for _ in range(2))
    t = {"a": jnp.linspace(0.1, 1.0, 8)}
    at, spans = MeanFlow(share=0.0).draw(jax.random.key(0), t, {"a": jnp.ones(8, bool)})
    (out, _), errors = MeanFlow(share=0.0).errors(wave, no_teacher, x, v, at, spans)
    _, plain = FlowMatching().errors(wave, no_teacher, x, v, t, FlowMatching().draw(jax.random.key(0), t, {})[1])
    square = jnp.square(jnp.sin(x["a"]) * t["a"][:, None] - v["a"]).mean(axis=1)
    np.testing.assert_allclose(plain["a"].mean(axis=1), square, rtol=1e-5)
    np.testing.assert_allclose(errors["a"], square / (square + 0.01), rtol=1e-5)
    np.testing.assert_allclose(out["a"], jnp.sin(x["a"]) * t["a"][:, None], rtol=1e-5)


def test_mean_velocity_of_a_known_path():
    """Data at one point c: v = (x - c) / t along the way, so u(x, t, r) = (x - c) / t for every r, and (3) is zero."""
    c, n = 0.7, 64
    t = {"a": jnp.asarray(RNG.uniform(0.2, 1.0, n), jnp.float32)}
    noise = jnp.asarray(RNG.normal(size=(n, 2)), jnp.float32)
    x, v = {"a": (1 - t["a"])[:, None] * c + t["a"][:, None] * noise}, {"a": noise - c}
    _, spans = MeanFlow(share=1.0).draw(jax.random.key(0), t, {"a": jnp.ones(n, bool)})

    def right(values, t, spans):
        return {"a": (values["a"] - c) / t["a"][:, None]}, None

    def wrong(values, t, spans):
        return {"a": (values["a"] - c) / t["a"][:, None] + spans["a"][:, None]}, None

    _, errors = MeanFlow().errors(right, no_teacher, x, v, t, spans)
    np.testing.assert_allclose(errors["a"], 0, atol=1e-6)
    _, errors = MeanFlow().errors(wrong, no_teacher, x, v, t, spans)
    square = (2 * spans["a"]) ** 2  # u is too large by the span, and its target too small by span * d span / dt
    np.testing.assert_allclose(errors["a"], square / (square + 0.01), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("objective", [MeanFlow(share=1.0), Shortcut(every=1)])
def test_only_what_is_on_its_way_has_a_span(objective):
    t = {"a": jnp.linspace(0.1, 0.9, 32), "b": jnp.linspace(0.9, 0.1, 32), "label": jnp.zeros(32)}
    moving = {"a": jnp.ones(32, bool), "b": jnp.arange(32) % 2 == 0}
    at, spans = objective.draw(jax.random.key(0), t, moving)
    assert not spans["label"].any() and not at["label"].any() and not spans["b"][1::2].any()
    assert (spans["a"] <= at["a"]).all() and (spans["b"] <= at["b"]).all()
    assert spans["a"].any() and spans["b"].any()


def test_steps_of_a_shortcut_end_on_the_grid_of_their_size():
    n = 400
    t = {"a": jnp.asarray(RNG.uniform(0, 1, n), jnp.float32), "given": jnp.zeros(n), "hidden": jnp.ones(n)}
    at, spans = Shortcut(every=4, halvings=5).draw(jax.random.key(0), t, {"a": jnp.ones(n, bool)})
    d, chosen = np.asarray(spans["a"]), np.arange(n) % 4 == 0
    assert set(d[chosen]) == {1, 1 / 2, 1 / 4, 1 / 8, 1 / 16} and not d[~chosen].any()
    steps = at["a"][chosen] / d[chosen]
    np.testing.assert_array_equal(steps, np.round(steps))
    assert (at["a"] >= t["a"]).all() and (at["a"][chosen] - t["a"][chosen] < d[chosen]).all()
    np.testing.assert_array_equal(at["a"][~chosen], t["a"][~chosen])
    assert not at["given"].any() and (at["hidden"] == 1).all()
    assert Shortcut(halvings=5).counts == (1, 2, 4, 8, 16)


def test_a_long_step_is_to_equal_two_of_half_its_size():
    """By hand, for the second of the two examples that are bootstrapped; the teacher is another network."""
    x, v = ({"a": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)} for _ in range(2))
    t, spans = {"a": jnp.array([1.0, 0.3, 0.75, 0.6])}, {"a": jnp.array([1.0, 0.0, 0.25, 0.0])}
    for halvings, told in ((7, 0.125), (3, 0.0)):  # a step of 1 / 8 is the smallest that is told, or flow matching
        (out, _), errors = Shortcut(every=2, halvings=halvings).errors(wave, times(2, wave), x, v, t, spans)
        first = 2 * (np.sin(x["a"][2]) * 0.75 + told)
        second = 2 * (np.sin(x["a"][2] - 0.125 * first) * 0.625 + told)
        np.testing.assert_allclose(errors["a"][2], np.mean((out["a"][2] - (first + second) / 2) ** 2), rtol=1e-5)
        np.testing.assert_allclose(errors["a"][1::2], np.square(out["a"] - v["a"]).mean(axis=1)[1::2], rtol=1e-5)


def test_what_stands_still_is_where_it_was_in_both_half_steps():
    seen = []

    def network(values, t, spans):
        seen.append((values, t, spans))
        return {name: x + 1.0 for name, x in values.items()}, None

    x = {name: jnp.full((1, 2), 3.0) for name in "ab"}
    t, spans = {"a": jnp.ones(1), "b": jnp.full(1, 0.5)}, {"a": jnp.zeros(1), "b": jnp.full(1, 0.5)}
    target = Shortcut().two_steps(network, x, t, spans, ("a", "b"))
    (_, _, told), (values, times, again) = seen
    jax.tree.map(np.testing.assert_array_equal, told, again)
    assert (told["a"], told["b"], times["a"], times["b"]) == (0, 0.25, 1, 0.25)
    np.testing.assert_allclose([values["a"][0, 0], values["b"][0, 0]], [3.0, 3.0 - 0.25 * 4.0])
    np.testing.assert_allclose([target["a"][0, 0], target["b"][0, 0]], [4.0, (4.0 + 3.0) / 2])


def test_the_teacher_gets_no_gradient():
    x, v, t = {"a": jnp.ones((2, 3))}, {"a": jnp.zeros((2, 3))}, {"a": jnp.ones(2)}

    def loss(student, teacher):
        networks = times(student, wave), times(teacher, wave)
        return Shortcut(every=1).errors(*networks, x, v, t, {"a": jnp.array([1.0, 0.5])})[1]["a"].sum()

    to_student, to_teacher = jax.grad(loss, (0, 1))(2.0, 3.0)
    assert to_student != 0 and to_teacher == 0


def test_training_is_taught_by_the_averaged_parameters_and_sees_nothing_that_is_not_there():
    model, tx = dataclasses.replace(TINY, objective=Shortcut(every=2)), optax.sgd(0.0)
    params = jax.tree.map(lambda x: x + 0.1, jax.jit(model.init)(jax.random.key(0))[0])
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, tx.init(params), params)
    batch, other = random_batch(TINY.modalities, 6, present=0.6), random_batch(TINY.modalities, 6, seed=1)
    step = jax.jit(functools.partial(model.step, tx))
    plain = step(state, batch, jax.random.key(2))[1]
    taught = step(state.replace(ema=jax.tree.map(lambda x: 1.1 * x, params)), batch, jax.random.key(2))[1]
    assert taught["loss/a"] != plain["loss/a"] and taught["loss/label"] == plain["loss/label"]
    mixed = Batch(batch.completed(other.values), batch.present)
    jax.tree.map(np.testing.assert_array_equal, plain, step(state, mixed, jax.random.key(2))[1])


@pytest.mark.parametrize("objective", FEW)
def test_a_batch_of_one(objective):
    model = dataclasses.replace(TINY, objective=objective)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0))[0])
    loss = jax.eval_shape(model.loss, params, random_batch(TINY.modalities, 1), jax.random.key(0))[0]
    assert loss.shape == (1,)


def test_times_are_told_finely_where_nothing_is_differentiated():
    scales = [dataclasses.replace(TINY, objective=objective).network.scale for objective in (FlowMatching(), *FEW)]
    assert scales == [1000, 1, 1000]
    fused = dataclasses.replace(TINY, implementation="cudnn")
    found = [dataclasses.replace(fused, objective=objective).network.implementation for objective in FEW]
    assert found == ["xla", "cudnn"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"objective": Shortcut(), "steps": 24}, r"steps is 24, but must be in \(1, 2, 4, 8, 16, 32, 64\)"),
        ({"objective": Shortcut(halvings=2), "steps": 4}, r"steps is 4, but must be in \(1, 2\)"),
        ({"objective": MeanFlow(), "sampler": Flow.sampler}, "sampler is Heun.*, but must be Euler.* with MeanFlow"),
        (
            {"objective": Shortcut(), "times": Times(tokens=0.5)},
            "times is Times.*, but must be without tokens with Sh",
        ),
        ({"objective": Shortcut(), "path": DDPM()}, "path is DDPM.*, but must be of velocities with Shortcut"),
    ],
)
def test_what_does_not_go_together(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(TINY, **fields)


@pytest.mark.parametrize(
    ("cls", "fields", "sentence"),
    [
        (MeanFlow, {"share": 1.5}, "share is 1.5, but must be from 0 to 1"),
        (Shortcut, {"every": 0}, "every is 0, but must be at least 1"),
        (Shortcut, {"halvings": 0}, "halvings is 0, but must be at least 1"),
    ],
)
def test_what_objectives_refuse(cls, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        cls(**fields)


# Four points, two apart: the mean velocity from noise leads to their middle, where there is nothing.
CORNERS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)


def one_step(objective, updates):
    """2,000 points made in one step by a small model trained for that many steps."""
    model = Flow(modalities={"a": Vector(2)}, width=32, joint=0, depth=1, heads=2, sampler=Euler(), steps=1,
                 objective=objective, times=Times(density=UniformTimes()))  # fmt: skip
    tx, key = optax.adam(optax.cosine_decay_schedule(5e-3, updates)), jax.random.key(1)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(jax.random.key(0))

    @jax.jit
    def steps(state):
        def one(state, i):
            step = jax.random.fold_in(key, i)
            a = jax.random.choice(jax.random.fold_in(step, 0), CORNERS, (256,))
            a += 0.1 * jax.random.normal(jax.random.fold_in(step, 1), (256, 2))
            return model.step(tx, state, Batch({"a": a}, {"a": jnp.ones(256, bool)}), step)[0], None

        return jax.lax.scan(one, state, jnp.arange(updates))[0]

    return model.sample(steps(state).variables, key, 2000)["a"]


def distance(made):
    """The energy distance of points from the data: 0 only between equal distributions (Szekely and Rizzo 2013)."""
    rng = np.random.default_rng(0)
    data = CORNERS[rng.integers(4, size=2000)] + 0.1 * rng.normal(size=(2000, 2))

    def apart(x, y):
        return np.linalg.norm(x[:, None] - y[None], axis=-1).mean()

    made = np.asarray(made)
    return 2 * apart(made, data) - apart(made, made) - apart(data, data)


@pytest.mark.slow
def test_one_long_step_leads_to_data():
    """Over three seeds, flow matching was 0.93 to 0.98 away, MeanFlow 0.01 to 0.02 and Shortcut 0.02 to 0.06."""
    plain = distance(one_step(FlowMatching(), 500))
    for objective in (Shortcut(every=2, halvings=4), MeanFlow(share=0.5)):
        assert distance(one_step(objective, 500)) < plain / 5, objective
