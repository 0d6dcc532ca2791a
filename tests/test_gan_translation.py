"""Translation: what players minimise, which network sees what, and that what is learned is the other picture."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_gan_networks import random_params

from mmgen_jax.gan import SPADE, Hinge, LeastSquares, Patches, ResNet, Translation, UNet, spectral, translation
from mmgen_jax.gan.networks import spade
from mmgen_jax.modalities import Image, LabelMap, Vector
from mmgen_jax.types import Batch, TrainState

KEY = jax.random.key(0)
PAIR = {"map": LabelMap(8, 6, 3), "photo": Image(8, 6, features=2)}
PICTURES = {"a": Image(8, 6, 1, features=2), "b": Image(8, 6, 1, features=2)}
PAIRED = Translation(
    modalities=PAIR,
    source="map",
    target="photo",
    noise=2,
    networks=SPADE(growth=2, hidden=3),
    critics=Patches(layers=1, scales=2),
    loss=Hinge(),
    l1=3.0,
    matching=0.5,
)
CYCLE = Translation(
    modalities=PICTURES,
    source="a",
    target="b",
    paired=False,
    critics=Patches(layers=1),
    networks=UNet(growth=1),
    loss=LeastSquares(),
    cycle=2.0,
    identity=0.25,
)


def examples(model, n=4, seed=0):
    rng, values = np.random.default_rng(seed), {}
    for name, m in model.modalities.items():
        values[name] = rng.integers(0, 3, (n, *m.shape)) if m.dtype == np.int32 else rng.random((n, *m.shape))
        values[name] = values[name].astype(m.dtype)
    return Batch(values, {name: np.ones(n, bool) for name in values})


@functools.cache
def params(model):
    """None of which is zero, drawn without a program that has to be compiled."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(model.init, KEY)[0]
    return jax.tree.map(lambda w: (rng.normal(size=w.shape) / np.sqrt(w.shape[0])).astype(w.dtype), shapes)


@pytest.mark.parametrize(
    "way, shape, z", [(UNet(growth=2), (6, 9, 3), 2), (ResNet(blocks=1), (7, 2), 2), (SPADE(2, 3), (7, 2), 0)], ids=str
)
def test_any_shape_and_a_batch_of_one(way, shape, z):
    network = way.translator(2, 3)
    x, code = jax.random.normal(KEY, (2, *shape)), jax.random.normal(KEY, (2, z))
    weights = random_params(network, x, code)

    @jax.jit
    def both(weights, x, code):
        grads, made = jax.grad(lambda *inputs: spread(network.apply(*inputs)), has_aux=True)(weights, x, code)
        return made, network.apply(weights, x[1:], code[1:]), grads

    def spread(y):
        return y.std(), y

    made, one, grads = both(weights, x, code)
    assert made.shape == (2, *shape[:-1], 2)
    np.testing.assert_allclose(one, made[1:], rtol=1e-3, atol=1e-4)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.any(grad != 0), jax.tree_util.keystr(path)


def test_a_map_modulates_its_own_places():
    """Equation (1) of `spade.py`: scale and shift of a cell follow the map around it, and rms is the cell's own."""
    norm, x = spade.MappedNorm(3), jax.random.normal(KEY, (1, 9, 9, 4))
    m = jnp.zeros((1, 9, 9, 2)).at[:, :4].set(1.0)
    weights = random_params(norm, x, m)
    y, plain = norm.apply(weights, x, m), x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    flat = norm.apply(weights, x, jnp.zeros_like(m))
    np.testing.assert_allclose(y[:, 7], flat[:, 7], rtol=1e-5, atol=1e-5)  # far from where it is another map
    assert np.abs(y[:, :4] - flat[:, :4]).max() > 0.1
    ratio = (norm.apply(weights, 2 * x, m) - y) / plain
    np.testing.assert_allclose(ratio, 0, atol=1e-3)
    small = spade.resized(jnp.arange(9.0).reshape(1, 9, 1, 1), (3, 1))
    np.testing.assert_array_equal(small[0, :, 0, 0], [1, 4, 7])


def moves(model):
    """What critics see, what they minimise, and the terms of the generators, by target: of the same made examples."""
    weights, x, found = params(model), model.seen(examples(model)), {}
    for t, s in model.ways.items():
        y = model.made(weights["generator"], t, x[s], KEY)
        seen = [model.judged(weights["critic"], t, x, example) for example in (x[t], y)]
        critic = translation.critic_loss(model, weights["critic"], t, x, y, jnp.mean)
        terms = translation.terms_of(model, weights["generator"], weights["critic"], t, x, KEY)
        found[t] = y, seen, critic, terms
    return x, found


def test_what_the_players_of_pairs_minimise():
    x, found = jax.jit(functools.partial(moves, PAIRED))()
    (y, (real, fake), critic, terms), target = found["photo"], x["photo"]
    assert [[f.shape[1:] for f in scale] for scale in real] == [
        [(4, 3, 2), (4, 3, 4), (4, 3, 1)],
        [(2, 2, 2), (2, 2, 4), (2, 2, 1)],
    ]
    hinge = [np.maximum(0, 1 - r[-1]).mean() + np.maximum(0, 1 + f[-1]).mean() for r, f in zip(real, fake, strict=True)]
    np.testing.assert_allclose(critic, np.mean(hinge), rtol=1e-5)
    np.testing.assert_allclose(terms["adversarial"].mean(), -np.mean([f[-1].mean() for f in fake]), rtol=1e-4)
    np.testing.assert_allclose(terms["l1"], np.abs(target - y).mean((1, 2, 3)), rtol=1e-5)
    gaps = [np.abs(a - b).mean() for r, f in zip(real, fake, strict=True) for a, b in zip(r[:-1], f[:-1], strict=True)]
    np.testing.assert_allclose(terms["matching"].mean(), np.sum(gaps) / 2, rtol=1e-4)
    assert terms.keys() == {"adversarial", "l1", "matching"}


def test_what_the_players_without_pairs_minimise():
    """The terms of both ways; a cycle comes back by the other generator, and an identity goes by the same."""

    @jax.jit
    def losses():
        x, found = moves(CYCLE)
        make = functools.partial(CYCLE.made, params(CYCLE)["generator"], key=KEY)
        back = {t: make(s, found[t][0]) for t, s in CYCLE.ways.items()}
        return x, found, back, {t: make(t, x[t]) for t in CYCLE.ways}

    x, found, back, same = losses()
    assert CYCLE.ways == {"b": "a", "a": "b"} and found["a"][3].keys() == {"adversarial", "cycle", "identity"}
    for t, s in CYCLE.ways.items():
        _, (real, fake), critic, terms = found[t]
        np.testing.assert_allclose(terms["cycle"], np.abs(back[t] - x[s]).mean((1, 2, 3)), rtol=1e-4)
        np.testing.assert_allclose(terms["identity"], np.abs(same[t] - x[t]).mean((1, 2, 3)), rtol=1e-4)
        squares = [
            [((scale[-1] - a) ** 2 / 2).mean() for scale in seen] for a, seen in ((1, fake), (1, real), (0, fake))
        ]
        np.testing.assert_allclose(terms["adversarial"].mean(), np.mean(squares[0]), rtol=1e-4)
        np.testing.assert_allclose(critic, np.mean(squares[1]) + np.mean(squares[2]), rtol=1e-4)


def test_a_step_moves_both_by_what_is_there():
    """With weights, the sum; of an example that lacks a part, nothing; with nothing at all no move."""
    few = {"networks": UNet(growth=1), "critics": Patches(layers=1), "spectral": "both"}
    model, tx = dataclasses.replace(PAIRED, **few), optax.sgd(0.1)
    stats = spectral.begun(KEY, params(model), model.spectral)
    state = TrainState(jnp.zeros((), jnp.int32), params(model), stats, tx.init(params(model)))
    step, batch = jax.jit(functools.partial(model.step, tx)), examples(model)
    after, metrics = step(state, batch, KEY)
    parts = [metrics[f"generator/{name}"] for name in ("adversarial", "l1", "matching")]
    np.testing.assert_allclose(metrics["generator"], parts[0] + 3 * parts[1] + 0.5 * parts[2], rtol=1e-5)
    for player in ("generator", "critic"):
        moved = jax.tree.map(lambda a, b: np.any(a != b), state.params[player], after.params[player])
        assert np.mean(jax.tree.leaves(moved)) > 0.8
        us = stats["spectral"][player], after.stats["spectral"][player]
        assert any(jax.tree.leaves(jax.tree.map(lambda a, b: np.any(a != b), *us)))
    there = {"map": np.array([True, True, True, False]), "photo": np.array([True, True, False, True])}
    other = {name: x.copy() for name, x in batch.values.items()}
    other["map"][2:], other["photo"][2:] = 2, 0.5  # of examples that lack a part
    one, two = (step(state, Batch(values, there), KEY)[0] for values in (batch.values, other))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one.params, two.params)
    nothing = Batch(batch.values, {"map": np.ones(4, bool), "photo": np.zeros(4, bool)})
    jax.tree.map(np.testing.assert_array_equal, step(state, nothing, KEY)[0].params, state.params)


def test_sampling_answers_a_source():
    variables, batch = {"params": params(CYCLE)}, examples(CYCLE)
    made = CYCLE.sample(variables, KEY, 4, given={"a": batch.values["a"]})
    np.testing.assert_array_equal(made["a"], batch.values["a"])
    one = CYCLE.sample(variables, KEY, 1, given={"a": batch.values["a"][2]})
    np.testing.assert_allclose(one["b"][0], made["b"][2], rtol=1e-4, atol=1e-5)
    assert CYCLE.sample(variables, KEY, 2)["b"].shape == (2, 8, 6, 1)  # of nothing
    with pytest.raises(ValueError, match="'map' cannot be made"):
        PAIRED.sample({"params": params(PAIRED)}, KEY, 1, targets=("map",))


@pytest.mark.parametrize(
    "model, fields, message",
    [
        (PAIRED, dict(source="photo"), "source is 'photo' and target 'photo', but they must be the two modalities"),
        (PAIRED, dict(modalities={**PAIR, "other": Image(8, 6)}), "which are \\['map', 'photo', 'other'\\]"),
        (PAIRED, dict(modalities={**PAIR, "photo": Image(8, 8)}), "must be of one space"),
        (PAIRED, dict(modalities={"map": Vector(2), "photo": Vector(2)}), "must be of one space"),
        (PAIRED, dict(noise=-1), "noise is -1, but must be at least 0"),
        (PAIRED, dict(l1=-1.0), "l1 is -1.0, but must be at least 0"),
        (PAIRED, dict(cycle=1.0), "cycle is 1.0, but must be at least 0, and 0 with pairs"),
        (CYCLE, dict(matching=1.0), "matching is 1.0, but must be at least 0, and 0 without pairs"),
        (CYCLE, dict(modalities={**PICTURES, "b": Image(8, 6)}), "or where source and target have different channels"),
        (CYCLE, dict(smoothing=1.0), "smoothing is 1.0"),
        (CYCLE, dict(spectral="all"), "spectral is 'all'"),
    ],
)
def test_fields_out_of_range(model, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(model, **fields)
