"""The flow transformer: what it sees, what it cannot see, and that it samples what it was trained on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.diffusion import Flow, Guidance, Heun, Times, bits_per_dimension, log_likelihood
from mmgen_jax.diffusion.network import place_vectors, places, symbols
from mmgen_jax.diffusion.sampling import Task
from mmgen_jax.modalities import Audio, Bernoulli, Image, Label, Normal, Text, Vector, Video
from mmgen_jax.types import Batch, TrainState

MODALITIES = {
    "image": Image(8, 8, 1, patch=4),
    "video": Video(4, 8, 8, 1, tubelet=(2, 4, 4)),
    "audio": Audio(512, rate=512, mels=4, window=128, hop=64, patch=3),
    "text": Text(6),
    "label": Label(5),
    "vector": Vector(3),
}
SMALL = Flow(modalities=MODALITIES, width=32, joint=1, depth=1, heads=2, steps=3)


def shaken(params, seed=0):
    """Parameters of which none is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree, [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


@functools.cache
def fresh():
    return jax.jit(SMALL.init)(jax.random.key(0))[0]


@functools.cache
def params():
    return shaken(fresh())


def inputs(n=2, seed=0):
    """Noised values of all modalities, and random times."""
    batch = random_batch(MODALITIES, n, seed)
    t = {name: jnp.asarray(np.random.default_rng(seed).uniform(0.1, 0.9, n), jnp.float32) for name in MODALITIES}
    return jax.tree.map(jnp.asarray, batch.values), t


apply = jax.jit(lambda params, x, t: SMALL.network.apply({"params": params}, x, t))


def test_output_is_zero_at_first():
    for name, out in apply(fresh(), *inputs()).items():
        expected = (2, *MODALITIES[name].likelihood.out_shape(MODALITIES[name].shape))
        np.testing.assert_array_equal(out, np.zeros(expected, np.float32))


def test_the_order_of_the_modalities_changes_nothing():
    turned = dict(reversed(MODALITIES.items()))
    other = dataclasses.replace(SMALL, modalities=turned)
    jax.tree.map(np.testing.assert_array_equal, fresh(), jax.jit(other.init)(jax.random.key(0))[0])
    x, t = inputs()
    again = jax.jit(lambda p, x, t: other.network.apply({"params": p}, x, t))(params(), x, t)
    jax.tree.map(np.testing.assert_array_equal, apply(params(), x, t), again)
    made = [m.sample({"params": params()}, jax.random.key(1), 2) for m in (SMALL, other)]
    jax.tree.map(np.testing.assert_array_equal, *map(dict, made))


def test_at_time_one_data_change_no_output_and_no_gradient():
    """Bit for bit: what is not there needs no attention mask."""
    model = dataclasses.replace(SMALL, times=Times(independent=1.0, shared=0.0))
    batch, other = random_batch(MODALITIES, 4), random_batch(MODALITIES, 4, seed=1)

    def loss(params, batch):
        return model.loss(params, batch, jax.random.key(2))[0].mean()

    gradient = jax.jit(jax.value_and_grad(loss))
    for hidden in MODALITIES:
        present = {name: np.full(4, name != hidden) for name in MODALITIES}
        changed = batch.values | {hidden: other.values[hidden]}
        results = [gradient(params(), Batch(values, present)) for values in (batch.values, changed)]
        jax.tree.map(np.testing.assert_array_equal, *results)


def test_every_modality_sees_every_other():
    x, t = inputs()
    before = apply(params(), x, t)
    for name, modality in MODALITIES.items():
        changed = x | {name: (x[name] + 1) % symbols(modality) if symbols(modality) else x[name] + 1.0}
        after = apply(params(), changed, t)
        assert all(np.abs(after[m] - before[m]).max() > 1e-5 for m in MODALITIES), name
        after = apply(params(), x, t | {name: t[name] * 0.5})
        assert all(np.abs(after[m] - before[m]).max() > 1e-6 for m in MODALITIES), name


def test_a_time_for_each_token_equals_one_for_all_where_they_are_the_same():
    x, t = inputs()
    each = {name: jnp.broadcast_to(t[name][:, None], (2, len(m.positions()))) for name, m in MODALITIES.items()}
    for name, out in apply(params(), x, each).items():
        np.testing.assert_allclose(out, apply(params(), x, t)[name], rtol=2e-4, atol=2e-5)


def test_sound_and_clip_stand_at_the_same_places_in_seconds():
    clip, sound = places(Video(8, 8, 8, 1, fps=8, tubelet=(2, 8, 8))), places(Audio(8000, rate=8000, mels=8, patch=4))
    np.testing.assert_allclose(clip[:, 0], 25 * (np.arange(4) * 2 + 0.5) / 8, rtol=1e-6)
    np.testing.assert_allclose(sound[:3, 0], 25 * (np.arange(3) * 4 + 1.5) * 128 / 8000, rtol=1e-6)
    assert not clip[:, 3].any() and not sound[:, 1:].any()
    np.testing.assert_array_equal(places(Text(4))[:, 3], np.arange(4))


def test_tokens_that_are_all_alike_are_told_apart_by_where_they_stand():
    """Rotary positions alone cannot: attention over equal values gives the same wherever it is asked from."""
    image = Image(8, 8, 1, patch=4)
    model = Flow(modalities={"image": image}, width=32, joint=0, depth=1, heads=2)
    params = shaken(jax.jit(model.init)(jax.random.key(0))[0])
    t = {"image": jnp.array([0.5])}
    out = jax.jit(model.network.apply)({"params": params}, {"image": jnp.zeros((1, 8, 8, 1))}, t)["image"]
    patches = out.reshape(2, 4, 2, 4).swapaxes(1, 2).reshape(4, 16)
    apart = np.abs(patches[:, None] - patches[None]).max(axis=-1)
    assert apart[~np.eye(4, dtype=bool)].min() > 1e-2


def test_every_axis_has_channels_of_its_own_and_seconds_are_the_same_in_sound_and_clip():
    clip, sound = Video(8, 8, 8, 1, fps=8, tubelet=(2, 8, 4)), Audio(8000, rate=8000, mels=8, patch=4)
    shown, heard = place_vectors(clip, 32), place_vectors(sound, 32)
    seconds = np.r_[:4, 16:20]  # of four axes in 32 channels: 4 cosines, and 4 sines
    angles = places(sound)[:, :1] * 10_000.0 ** (-np.arange(4)[None] / 4)
    np.testing.assert_allclose(heard[:, seconds], np.concatenate([np.cos(angles), np.sin(angles)], axis=1), rtol=1e-12)
    assert (np.delete(heard, seconds, axis=1) == heard[:1, np.delete(np.arange(32), seconds)]).all()
    angles = places(clip)[:, :1] * 10_000.0 ** (-np.arange(4)[None] / 4)
    np.testing.assert_allclose(shown[:, seconds], np.concatenate([np.cos(angles), np.sin(angles)], axis=1), rtol=1e-12)
    changing = [np.ptp(shown[:, [i, 16 + i]], axis=0).any() for i in (0, 4, 8, 12)]
    assert changing == [True, False, True, False]  # seconds and columns; one row of patches; no index


def test_what_the_network_sees_while_sampling():
    """What is given is clean at t = 0, what is made is on its way, the rest, and what guidance hides, is noise at 1."""
    model = Flow(modalities={name: Vector(2) for name in "abc"}, width=16, joint=0, depth=1, heads=2)
    clean, noise = ({name: jnp.full((2, 2), float(i + k)) for i, name in enumerate("abc")} for k in (10, 20))
    batch = Batch(clean, {"a": jnp.array([True, False]), "b": jnp.zeros(2, bool), "c": jnp.zeros(2, bool)})
    task = Task(model, ("b",), frozenset("a"), {}, None, batch, clean, noise)
    for branch, seen in zip(Guidance(2.0).branches(("b",), frozenset("a")), (True, False), strict=True):
        state, t = {"b": jnp.full((2, 2), 5.0)}, {"b": jnp.asarray(0.75)}
        values, times, spans = task.view(branch, state, t, jnp.asarray(0.25))
        np.testing.assert_array_equal(values["a"][:, 0], [10.0 if seen else 20.0, 20.0])
        np.testing.assert_array_equal(times["a"], [0.0 if seen else 1.0, 1.0])
        np.testing.assert_array_equal(values["b"], state["b"])
        np.testing.assert_array_equal(times["b"], [0.75, 0.75])
        np.testing.assert_array_equal(spans["b"], [0.25, 0.25])
        np.testing.assert_array_equal(values["c"], noise["c"])
        np.testing.assert_array_equal(times["c"], [1.0, 1.0])
        assert not spans["a"].any() and not spans["c"].any()


def test_loss_by_hand_where_the_network_says_nothing():
    """At first u = 0 and all symbols are equally probable: the loss is known."""
    model = Flow(modalities={"vector": Vector(3), "text": Text(6)}, width=16, joint=0, depth=1, heads=2)
    fresh = jax.jit(model.init)(jax.random.key(0))[0]
    rng = np.random.default_rng(0)
    values = {"vector": rng.normal(size=(4000, 3)).astype(np.float32) * 2, "text": np.full((4000, 6), 3, np.int32)}
    batch = Batch(values, {"vector": np.arange(4000) % 2 == 0, "text": np.ones(4000, bool)})
    _, terms = jax.jit(lambda key: model.loss(fresh, batch.masked(), key))(jax.random.key(1))
    vector, text = np.asarray(terms["loss/vector"]), np.asarray(terms["loss/text"])
    assert not vector[1::2].any()  # not present
    seen = vector[::2][vector[::2] > 0]
    assert 0.6 < len(seen) / 2000 < 0.95  # those given clean have nothing to say
    np.testing.assert_allclose(seen.mean(), 4 + 1, rtol=0.05)  # E (eps - x)^2
    np.testing.assert_allclose(text[text > 0], np.log(symbols(Text(6))), rtol=1e-5)


def test_weights_and_their_names():
    batch, key = random_batch(MODALITIES, 4).masked(), jax.random.key(1)
    double = dataclasses.replace(SMALL, weights={"image": 3.0, "label": 0.0})
    total, terms = jax.jit(lambda p: double.loss(p, batch, key))(params())
    plain = dict.fromkeys(MODALITIES, 1.0) | {"image": 3.0, "label": 0.0}
    np.testing.assert_allclose(total, sum(w * terms[f"loss/{name}"] for name, w in plain.items()), rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"modalities": {}}, "modalities is .*, but must be at least one"),
        ({"width": 30}, "width is 30, but must be a multiple of 4"),
        ({"joint": 0, "depth": 0}, "depth is 0, but must be at least 0, and 1 together with joint"),
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"remat": "all"}, "remat is 'all', but must be None or one of full, dots, names"),
        ({"weights": {"smell": 1.0}}, r"weights\['smell'\] is 1.0, but names must be of"),
        ({"modalities": {"v": Vector(2, likelihood=Normal(None))}}, "the likelihood of 'v' is .* one output a value"),
    ],
)
def test_what_a_flow_refuses(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(SMALL, **fields)


def test_bits_are_flown_as_real_values():
    assert Flow(modalities={"v": Vector(2, likelihood=Bernoulli())}, width=16, heads=2, steps=1).makes == ("v",)


# Two correlated Gaussians: rho = 0.8, and a class that is the sign of the first.
RHO = 0.8
PAIR = {"a": Vector(1), "b": Vector(1), "sign": Label(2)}


def pairs(n, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.multivariate_normal([0, 0], [[1, RHO], [RHO, 1]], n).astype(np.float32).T
    values = {"a": a[:, None], "b": b[:, None], "sign": (a > 0).astype(np.int32)}
    return Batch(values, dict.fromkeys(PAIR, np.ones(n, bool)))


@functools.cache
def trained():
    """A flow of the pair, after some seconds of training."""
    model = Flow(modalities=PAIR, width=48, joint=0, depth=1, heads=2, sampler=Heun(), steps=12)
    tx = optax.adam(optax.cosine_decay_schedule(4e-3, 1500))
    state = jax.jit(lambda key: TrainState.create(model, tx, key, ema=False))(jax.random.key(0))
    data = jax.tree.map(jnp.asarray, pairs(50_000, 0))

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(state):
        def one(state, i):
            rows = jax.random.randint(jax.random.fold_in(jax.random.key(2), i), (256,), 0, 50_000)
            return model.step(tx, state, data.take(rows), jax.random.fold_in(jax.random.key(1), i))[0], None

        return jax.lax.scan(one, state, jnp.arange(1500))[0]

    return model, steps(state).variables


@functools.partial(jax.jit, static_argnums=0)
def drawn(model, variables, key, given):
    """Each example has its own parts, so that one compiled program makes everything of anything."""
    return model.sample(variables, key, len(given), given=given)


def knowing(n, **given):
    """n examples of which these values are known."""
    values = {name: np.full((n, *m.shape), given.get(name, 0), m.dtype) for name, m in PAIR.items()}
    return Batch(values, {name: np.full(n, name in given) for name in PAIR})


@pytest.mark.slow
def test_two_gaussians_are_recovered_jointly_marginally_and_conditionally():
    model, variables = trained()
    n = 4000
    joint = drawn(model, variables, jax.random.key(0), knowing(n))
    a, b = joint["a"][:, 0], joint["b"][:, 0]
    np.testing.assert_allclose(np.cov(a, b), [[1, RHO], [RHO, 1]], atol=0.1)
    np.testing.assert_allclose([a.mean(), b.mean()], 0, atol=0.1)
    assert np.mean((a > 0) == (joint["sign"] == 1)) > 0.95
    for value in (-1.0, 0.5):
        b = drawn(model, variables, jax.random.key(2), knowing(n, a=value))["b"]
        np.testing.assert_allclose([b.mean(), b.std()], [RHO * value, (1 - RHO**2) ** 0.5], atol=0.1)
    signs = drawn(model, variables, jax.random.key(3), knowing(n, b=0.5))["sign"]
    expected = np.mean(np.random.default_rng(0).normal(RHO * 0.5, (1 - RHO**2) ** 0.5, 100_000) > 0)
    np.testing.assert_allclose(np.mean(signs), expected, atol=0.06)
    alone = model.sample(variables, jax.random.key(1), n, targets=("b",))["b"]
    np.testing.assert_allclose([alone.mean(), alone.std()], [0, 1], atol=0.1)


@pytest.mark.slow
def test_guidance_moves_samples_towards_what_is_given():
    model, variables = trained()
    given = {"sign": np.array(1, np.int32)}
    means = [drawn(model, variables, jax.random.key(0), knowing(2000, sign=1))["a"].mean()]
    for guidance in (Guidance(3.0), Guidance(scales={"sign": 3.0})):
        strong = dataclasses.replace(model, guidance=guidance)
        means.append(strong.sample(variables, jax.random.key(0), 2000, given=given, targets=("a",))["a"].mean())
    np.testing.assert_allclose(means[0], (2 / np.pi) ** 0.5, atol=0.1)
    assert means[1] > means[0] + 0.15
    np.testing.assert_allclose(means[1], means[2], atol=1e-3)  # one condition: both forms are the same
    never = dataclasses.replace(model, guidance=Guidance(3.0, interval=(1.0, 1.0)))
    late = never.sample(variables, jax.random.key(0), 2000, given=given, targets=("a",))["a"]
    assert abs(late.mean() - means[0]) < abs(means[1] - means[0])


@pytest.mark.slow
def test_likelihoods_are_those_of_the_two_gaussians():
    model, variables = trained()
    data = pairs(256, 1)
    a, b = (data.values[name][:, 0] for name in "ab")

    def normal(x, mean, var):
        return -0.5 * (x - mean) ** 2 / var - 0.5 * np.log(2 * np.pi * var)

    def found(of, given):
        batch = Batch(data.values, {name: np.full(256, name in (of, *given)) for name in PAIR})
        estimate = jax.jit(log_likelihood, static_argnames=("model", "of", "steps", "draws"))
        return estimate(model, variables["params"], batch, jax.random.key(1), of, draws=8)

    alone, conditional = found("a", ()), found("b", ("a",))
    np.testing.assert_allclose(alone.value.mean(), normal(a, 0, 1).mean(), atol=0.1)
    np.testing.assert_allclose(conditional.value.mean(), normal(b, RHO * a, 1 - RHO**2).mean(), atol=0.15)
    assert np.corrcoef(conditional.value, normal(b, RHO * a, 1 - RHO**2))[0, 1] > 0.9
    sign = found("sign", ())
    np.testing.assert_allclose(sign.value.mean(), -np.log(2), atol=0.05)
    assert found("sign", ("a",)).value.mean() > -0.2


def test_likelihood_where_the_network_says_nothing():
    """A velocity of 0 leaves x where it is, under a standard normal; symbols are all equally probable."""
    batch = random_batch(MODALITIES, 3)
    estimate = jax.jit(log_likelihood, static_argnames=("model", "of", "steps", "draws"))
    found = estimate(SMALL, fresh(), batch, jax.random.key(0), "image", steps=2, draws=2)
    x = 2 * batch.values["image"].reshape(3, -1) - 1
    expected = np.sum(-0.5 * x**2 - 0.5 * np.log(2 * np.pi) + np.log(2), axis=1)
    np.testing.assert_allclose(found.value, expected, rtol=1e-5)
    np.testing.assert_allclose(found.error, 0, atol=1e-4)
    some = Batch(batch.values, batch.present | {"image": np.arange(3) == 1})
    found = estimate(SMALL, fresh(), some, jax.random.key(0), "image", steps=2, draws=2)
    np.testing.assert_allclose(found.value, np.where([0, 1, 0], expected, 0), rtol=1e-5)
    words = estimate(SMALL, fresh(), batch, jax.random.key(0), "text", draws=400)
    np.testing.assert_allclose(words.value, -6 * np.log(symbols(Text(6))), rtol=0.1)
    np.testing.assert_allclose(bits_per_dimension(np.zeros(2), (4, 4)), 8.0)


@pytest.mark.slow
def test_a_symbol_that_is_given_is_soon_read():
    """The class is in one of twenty symbols: it must not drown in what says where that symbol stands, and be summed up.

    Without the summary of equation (2) of `network.py`, 85 % are right by then.
    """
    pair = {"text": Text(20), "label": Label(5)}
    model = Flow(modalities=pair, width=64, joint=1, depth=1, heads=2)
    tx, rng = optax.adam(2e-3), np.random.default_rng(0)
    label = rng.integers(5, size=512).astype(np.int32)
    text = np.full((512, 20), 10, np.int32)
    text[:, 7] = 11 + label
    data = Batch({"text": jnp.asarray(text), "label": jnp.asarray(label)}, {name: jnp.ones(512, bool) for name in pair})
    state = jax.jit(functools.partial(TrainState.create, model, tx))(jax.random.key(0))

    @jax.jit
    def steps(state):
        def one(state, i):
            key = jax.random.fold_in(jax.random.key(1), i)
            return model.step(tx, state, data.take(jax.random.randint(key, (64,), 0, 512)), key)[0], None

        return jax.lax.scan(one, state, jnp.arange(125))[0]

    made = model.sample(steps(state).variables, jax.random.key(2), 512, given={"text": text}, targets=("label",))
    assert np.mean(made["label"] == label) > 0.9


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"of": "smell"}, "'smell' is no modality"),
        ({"of": "text", "draws": 1}, "draws is 1, but must be at least 2"),
        ({"of": "image", "steps": 0}, "steps is 0, but must be at least 1"),
    ],
)
def test_what_a_likelihood_refuses(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        log_likelihood(SMALL, None, random_batch(MODALITIES, 1), jax.random.key(0), **fields)
