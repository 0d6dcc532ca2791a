"""The rules of the game: who moves by what, what is given, what is compared, and that k updates are k updates."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from vae_cases import random_batch

from mmgen_jax.gan import DCGAN, GAN, R1, R2, LeCam, PathLength, cooperation, game
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.rng import fold_name
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.train.players import Players
from mmgen_jax.train.step import averaged
from mmgen_jax.types import Batch, TrainState

MODALITIES = {"label": Label(4, features=4), "vector": Vector(3, features=4)}
SMALL = GAN(modalities=MODALITIES, noise=4, own=2, width=8, networks=DCGAN())
BATCH = random_batch(MODALITIES, 8, present=0.8)
KEY = jax.random.key(1)


def start(model, tx):
    return jax.jit(lambda key: TrainState.create(model, tx, key))(jax.random.key(0))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def moments(opt):
    """What an optimiser remembers, by the path to it."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(opt)}


def differs(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("tx", [Players().make(10), optax.chain(optax.clip(1.0), optax.adam(1e-3))], ids=["own", "one"])
def test_an_update_moves_one_player_and_what_is_remembered_for_it(tx):
    state = start(SMALL, tx)
    critic, _ = jax.jit(functools.partial(game.critic_update, SMALL, tx, update=0))(state, BATCH.masked(), KEY)
    equal(critic.params["generator"], state.params["generator"])
    assert differs(critic.params["critic"], state.params["critic"])
    after, _ = jax.jit(functools.partial(game.generator_update, SMALL, tx))(critic, BATCH.masked(), KEY)
    equal(after.params["critic"], critic.params["critic"])
    assert differs(after.params["generator"], critic.params["generator"])
    for before, now, player in ((state, critic, "critic"), (critic, after, "generator")):
        old, new = moments(before.opt), moments(now.opt)
        assert old.keys() == new.keys() and len(old) > 8
        for path, moment in new.items():
            if player in path:
                assert moment.ndim == 0 or np.any(moment != old[path]) or not moment.any(), path
            elif moment.ndim:
                np.testing.assert_array_equal(moment, old[path], err_msg=path)


def test_each_player_has_its_own_rate_and_schedule():
    own = Players(Optimizer("sgd", 1.0, b1=0.0), Optimizer("sgd", 0.25, schedule="linear", b1=0.0), critic_steps=2)
    tx, params = own.make(2), {"generator": jnp.ones(2), "critic": jnp.ones(2)}
    state, moved = TrainState(jnp.zeros(()), params, {}, tx.init(params)), []
    for _ in range(2):
        before = state
        for _ in range(2):
            state = game.moved(tx, state, jnp.ones(2), "critic")
        state = game.moved(tx, state, jnp.ones(2), "generator")
        moved.append([float((state.params[p] - before.params[p])[0]) for p in ("generator", "critic")])
    # The critic's rate falls to 0 over its 4 updates: 1, 3/4, 1/2, 1/4 of 0.25.
    np.testing.assert_allclose(moved, [[-1, -0.4375], [-1, -0.1875]], rtol=1e-6)
    assert own.rate(10)(3) == 1.0


def test_k_updates_in_the_step_are_k_updates_one_by_one():
    model = dataclasses.replace(SMALL, critic_steps=2, penalties=(R1(every=2), R2()), spectral="both", lecam=LeCam())
    tx = Players(critic_steps=2).make(10)
    whole = start(model, tx).replace(step=jnp.int32(3))
    step = jax.jit(functools.partial(model.step, tx))
    update = jax.jit(functools.partial(game.critic_update, model, tx))
    together, metrics = step(whole, BATCH, KEY)
    parts, losses = [BATCH.masked().take(np.arange(i, 8, 2)) for i in range(2)], []
    state = whole
    for i, part in enumerate(parts):
        state, logged = update(state, part, jax.random.fold_in(KEY, i), update=3 * 2 + i)
        losses.append(logged["loss"])
    state, _ = jax.jit(functools.partial(game.generator_update, model, tx))(state, parts[0], jax.random.fold_in(KEY, 2))
    assert int(together.step) == 4
    for a, b in zip(jax.tree.leaves(together.replace(step=0)), jax.tree.leaves(state.replace(step=0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    with pytest.raises(ValueError, match="critic_steps = 2"):
        model.step(tx, whole, random_batch(MODALITIES, 3), KEY)


def test_a_lazy_run_is_the_formula():
    """At one of three updates the penalty counts thrice, and the gradient is that of loss + 3 penalty."""
    lazy = dataclasses.replace(SMALL, penalties=(R1(every=3, gamma=2.0),))
    play = game.played(SMALL, start(SMALL, optax.sgd(1.0)).params["generator"], BATCH.masked(), KEY, {})
    params = start(SMALL, optax.sgd(1.0)).params["critic"]

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model, update):
        return jax.grad(lambda p: game.critics_loss(model, p, {}, play, KEY, update)[0])(params)

    plain = gradient(dataclasses.replace(SMALL, penalties=()), 0)
    thrice = gradient(dataclasses.replace(SMALL, penalties=(R1(gamma=6.0),)), 0)
    for update, wanted in ((0, thrice), (1, plain), (2, plain), (3, thrice)):
        for a, b in zip(jax.tree.leaves(gradient(lazy, update)), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_what_is_given_is_a_random_part_of_what_is_present():
    present = {"a": jnp.ones(3000, bool), "b": jnp.ones(3000, bool), "c": jnp.arange(3000) < 1500}
    given = game.draw_given(KEY, present)
    counts = np.stack(list(given.values())).sum(0)
    assert not np.asarray(given["c"])[1500:].any()
    for rows, sizes in ((slice(1500), 3), (slice(1500, None), 2)):  # from none to all but one, equally often
        shares = np.bincount(counts[rows], minlength=3) / 1500
        np.testing.assert_allclose(shares[:sizes], 1 / sizes, atol=0.04)
        assert not shares[sizes:].any()
    np.testing.assert_allclose(np.asarray(given["a"])[1500:].mean(), 0.25, atol=0.03)
    np.testing.assert_allclose(np.asarray(given["c"])[:1500].mean(), 1 / 3, atol=0.04)


def test_what_was_given_stands_in_the_made_example_and_what_is_missing_in_none():
    params = start(SMALL, optax.sgd(1.0)).params["generator"]
    play = game.played(SMALL, params, BATCH.masked(), KEY, {})
    for name in MODALITIES:
        given, there = (np.asarray(x[name]) for x in (play.given, BATCH.present))
        real, fake = np.asarray(play.real[name]), np.asarray(play.fake[name])
        np.testing.assert_array_equal(fake[given], real[given])
        assert not real[~there].any() and not fake[~there].any()
        made = there & ~given
        assert made.any() and (np.abs(fake[made] - real[made]).max(-1) > 0).all()
        np.testing.assert_array_equal(play.judged(name), made)
    np.testing.assert_allclose(play.fake["label"].sum(-1)[BATCH.present["label"]], 1, rtol=1e-5)
    first = play.real["label"][np.argmax(BATCH.present["label"])]
    np.testing.assert_allclose(np.sort(first), [0.025] * 3 + [0.925], rtol=1e-5)


def test_mismatched_examples_have_some_parts_of_their_neighbours():
    n = 200
    x = {name: jnp.arange(n, dtype=jnp.float32)[:, None] for name in "abc"}
    present = {"a": jnp.ones(n, bool), "b": jnp.ones(n, bool), "c": jnp.arange(n) % 2 == 0}
    wrong = game.mismatched(x, present, KEY)
    changed = {name: np.asarray(wrong[name][:, 0] != x[name][:, 0]) for name in "abc"}
    assert not changed["c"].any()  # of two neighbours only one has it
    np.testing.assert_array_equal(wrong["a"][changed["a"]], jnp.roll(x["a"], 1, axis=0)[changed["a"]])
    whole = game.mismatched(x, dict.fromkeys("abc", jnp.ones(n, bool)), KEY)
    sizes = sum(np.asarray(whole[name][:, 0] != x[name][:, 0]).astype(int) for name in "abc")
    assert set(sizes) == {1, 2}


def test_devices_by_themselves_move_as_one():
    """Under shard_map each device has its rows; the state must come out the same on all, and lazy terms must compile.

    Every row draws by its own device's key, so only what draws nothing can be compared: one modality, no noise.
    """
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    model = dataclasses.replace(SMALL, penalties=(R1(every=2), R2(sigma=0.1)), lecam=LeCam(), spectral="critic")
    model = dataclasses.replace(model, path_length=PathLength(every=2))
    tx = optax.sgd(1e-2)
    whole, rows = PartitionSpec(), PartitionSpec("data")

    def step(state, batch, key):
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        return model.step(tx, state, batch, key)

    each = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(whole, rows, whole), out_specs=whole))
    state, metrics = each(start(model, tx), random_batch(MODALITIES, 16), KEY)
    assert all(np.isfinite(x) for x in metrics.values()) and int(state.step) == 1
    assert float(jnp.abs(state.stats["lecam"]["joint"].real)) > 0 and float(state.stats["path"]["vector"]) > 0


def test_path_lengths_of_a_linear_generator():
    """Its Jacobian is the kernel; at every third step the term counts thrice, and between there is none."""
    vector = {"vector": Vector(3)}
    model = GAN(modalities=vector, noise=4, own=2, width=8, networks=DCGAN(), decoders={"vector": nn.Dense(3)})
    lengths = PathLength(weight=5.0, every=3, decay=0.1)
    tx, batch = optax.sgd(0.1), random_batch(vector, 8)
    state = start(model, tx)
    with_them = dataclasses.replace(model, path_length=lengths)

    @functools.partial(jax.jit, static_argnums=0)
    def update(model, step):
        stats = {"path": {"vector": jnp.float32(0.5)}} if model.path_length else {}
        return game.generator_update(model, tx, state.replace(stats=stats, step=step), batch, KEY)

    kernel = np.asarray(state.params["generator"]["decoders_vector"]["kernel"])
    own = fold_name(fold_name(KEY, "path"), "vector")
    y = np.asarray(jax.random.normal(jax.random.split(own, 1)[0], (8, 3))) / Vector(3).standard[1]
    length = np.linalg.norm(y @ kernel.T, axis=1)
    mean = 0.5 + 0.1 * (length.mean() - 0.5)
    for step in (0, 1):
        (plain, told), (after, logged) = update(model, step), update(with_them, step)
        wanted = 3 * 5.0 * ((length - mean) ** 2).mean() if step == 0 else 0
        np.testing.assert_allclose(logged["generator"] - told["generator"], wanted, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(after.stats["path"]["vector"], mean if step == 0 else 0.5, rtol=1e-5)
        moves = zip(*(jax.tree.leaves(x.params["generator"]) for x in (after, plain)), strict=True)
        assert any(np.abs(np.asarray(a - b)).max() > 1e-4 for a, b in moves) == (step == 0)


def test_projection_compares_each_pair_of_parts_that_are_there():
    parts = MODALITIES | {"other": Vector(2, features=4)}
    model = dataclasses.replace(SMALL, modalities=parts, projection=True)
    params = start(model, optax.sgd(1.0)).params["critic"]
    there = {"label": jnp.array([True, True]), "other": jnp.array([True, False]), "vector": jnp.array([True, True])}
    features = dict(zip(parts, jax.random.normal(KEY, (3, 2, model.width)), strict=True))
    features = {name: features[name] for name in sorted(features)}
    plain = dataclasses.replace(model, projection=False).judge(params, "joint")(features, there)
    found = model.judge(params, "joint")(features, there) - plain
    p = {name: features[name] @ params[f"projections_{name}"]["kernel"] for name in parts}
    pairs = {(a, b): (p[a] * p[b]).sum(-1) / np.sqrt(model.width) for a, b in itertools.combinations(sorted(p), 2)}
    np.testing.assert_allclose(found[0], sum(pair[0] for pair in pairs.values()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], pairs["label", "vector"][1], rtol=1e-4, atol=1e-5)


def test_the_joint_critic_knows_which_parts_were_given():
    params = start(SMALL, optax.sgd(1.0)).params["critic"]
    features = {name: jax.random.normal(KEY, (2, SMALL.width)) for name in sorted(MODALITIES)}
    there = dict.fromkeys(features, jnp.ones(2, bool))
    joint = SMALL.judge(params, "joint")
    nothing = joint(features, there)
    told = joint(features, there, {"label": jnp.array([False, True]), "vector": jnp.array([False, False])})
    np.testing.assert_array_equal(told[0], nothing[0])
    assert abs(float(told[1] - nothing[1])) > 1e-4


def test_auxiliary_classifiers_of_what_is_there():
    """Critics learn classes of real examples; the generator those of what it made, and of what it makes labels of."""
    parts = MODALITIES | {"kind": Label(3, features=4)}
    model = dataclasses.replace(SMALL, modalities=parts, auxiliary=2.0, penalties=(), weights={"vector": 0.5})
    params, batch = start(model, optax.sgd(1.0)).params, random_batch(parts, 32, present=0.7).masked()
    assert [params["critic"][f"classifiers_{m}"]["kernel"].shape[1] for m in sorted(parts)] == [4, 3, 7]
    play = game.played(model, params["generator"], batch, KEY, {})
    judge = functools.partial(model.judge, params["critic"])

    def nats(x, seen):
        total = 0.0
        classes = judge("classes")(judge("features")(x))
        for m, n in [("kind", "label"), ("label", "kind"), ("vector", "kind"), ("vector", "label")]:
            logits = np.asarray(classes[m][n])
            ce = np.log(np.exp(logits).sum(-1)) - (logits * np.asarray(x[n])).sum(-1)
            there = np.asarray(seen[m] & play.present[n])
            total += model.weight(m) * ce[there].mean()
        return total

    plain = dataclasses.replace(model, auxiliary=0.0)
    told, _ = game.critics_loss(model, params["critic"], {}, play, KEY, 0)
    wanted = nats(play.real, play.present)
    without = {name: p for name, p in params["critic"].items() if not name.startswith("classifiers")}
    np.testing.assert_allclose(told - game.critics_loss(plain, without, {}, play, KEY, 0)[0], 2 * wanted, rtol=1e-3)
    told, logged = game.generator_loss(model, params["critic"], play)
    wanted = nats(play.fake, {name: play.judged(name) for name in parts})
    for m, n in [("kind", "label"), ("label", "kind"), ("vector", "kind"), ("vector", "label")]:
        there = np.asarray(play.present[m] & play.judged(n))
        belief = jax.nn.softmax(judge("classes")(judge("features")(play.fake))[m][n])[there]
        assert there.any()
        wanted -= (belief * np.log(np.asarray(play.fake[n])[there])).sum(-1).mean()
    nothing = ~np.stack(list(play.given.values())).any(0)
    for n in ("kind", "label"):
        there = nothing & np.asarray(play.present[n])
        p, q = (np.asarray(x[n])[there].mean(0) for x in (play.real, play.fake))
        assert there.any()
        wanted += (p * np.log(p / q)).sum()
    np.testing.assert_allclose(logged["generator/classes"], wanted, rtol=1e-4)
    np.testing.assert_allclose(told - game.generator_loss(plain, without, play)[0], 2 * wanted, rtol=1e-3)


def test_labels_are_taught_beliefs_that_stay_as_they_are():
    """The slope by a made label is that of a cross entropy; none goes through the belief to what it is of."""
    logits, y = jnp.array([[2.0, 0.0, 0.0, -1.0]]), jnp.array([[0.1, 0.2, 0.3, 0.4]])
    there = dict.fromkeys(MODALITIES, jnp.array([True]))

    def taught(logits, y):
        return cooperation.distilled(SMALL, {"vector": {"label": logits}}, {"label": y}, there, there)

    of_logits, of_label = jax.grad(taught, (0, 1))(logits, y)
    np.testing.assert_array_equal(of_logits, 0)
    np.testing.assert_allclose(of_label, -jax.nn.softmax(logits) / y, rtol=1e-5)


def test_missing_parts_change_nothing_for_others():
    """Of examples whose vector is missing, no critic of vectors hears, and the joint critic sees none."""
    there = {"label": np.ones(8, bool), "vector": np.zeros(8, bool)}
    state = start(SMALL, optax.sgd(1.0))
    update = jax.jit(functools.partial(game.critic_update, SMALL, optax.sgd(1.0), update=0))
    after, metrics = update(state, Batch(BATCH.values, there).masked(), KEY)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params["critic"], state.params["critic"])
    assert not any(jax.tree.leaves(moved["networks_vector"])) and not any(jax.tree.leaves(moved["values_vector"]))
    assert any(jax.tree.leaves(moved["networks_label"])) and metrics["margin/vector"] == 0


@pytest.mark.parametrize(
    "fields, named",
    [
        (dict(modalities={}), "modalities"),
        (dict(modalities={"joint": Vector(2)}), "modalities"),
        (dict(noise=0), "noise"),
        (dict(critic_steps=0), "critic_steps"),
        (dict(mismatch=-1.0), "mismatch"),
        (dict(smoothing=1.0), "smoothing"),
        (dict(auxiliary=-1.0), "auxiliary"),
        (dict(modalities={"label": MODALITIES["label"]}, auxiliary=1.0), "auxiliary is 1.0, but must be .* 0 without"),
        (dict(modalities={n: Vector(2) for n in "ab"}, auxiliary=1.0), "auxiliary is 1.0"),
        (dict(spectral="all"), "spectral"),
        (dict(weights={"sound": 1.0}), "weights names 'sound'"),
        (dict(weights={"joint": -1.0}), "joint"),
        (dict(decoders={"sound": None}), "decoders names 'sound'"),
        (dict(special={"sound": DCGAN()}), "special names 'sound'"),
        (dict(penalties=[R1()]), "penalties"),
    ],
)
def test_fields_out_of_range(fields, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(SMALL, **fields)


@pytest.mark.parametrize(
    "fields, named",
    [
        (dict(critic_steps=0), "critic_steps"),
        (dict(ema=1.0), "ema"),
        (dict(warmup=-1), "warmup"),
        (dict(generator=Optimizer(ema=0.9)), "generator.ema"),
        (dict(critic=Optimizer(warmup=3)), "critic.warmup"),
    ],
)
def test_optimisers_out_of_range(fields, named):
    with pytest.raises(ValueError, match=named):
        Players(**fields)


@pytest.mark.slow
def test_a_game_learns_which_values_there_are_and_which_belong_together():
    """A label, and a number about -1 or 1 by it: jointly, and each given the other."""
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=2000).astype(np.int32)
    number = (2 * label - 1 + 0.3 * rng.normal(size=2000)).astype(np.float32)[:, None]
    parts = {"number": Vector(1), "label": Label(2)}
    data = Batch({"number": jnp.asarray(number), "label": jnp.asarray(label)}, {n: jnp.ones(2000, bool) for n in parts})
    model = GAN(modalities=parts, noise=8, own=4, width=32, networks=DCGAN())
    adam = optax.adam(1e-3, b1=0.0, b2=0.99)
    state = jax.jit(functools.partial(TrainState.create, model, adam, ema=True))(KEY)

    @jax.jit
    def trained(state):
        def one(state, i):
            key = jax.random.fold_in(KEY, i)
            state, _ = model.step(adam, state, data.take(jax.random.randint(key, (64,), 0, 2000)), key)
            return averaged(state, 0.99), None  # a game goes round its answer, and the average stands there

        return jax.lax.scan(one, state, jnp.arange(1000))[0]

    variables = trained(state).variables
    joint = model.sample(variables, KEY, 1000)
    assert np.mean((joint["number"][:, 0] > 0) == (joint["label"] == 1)) > 0.9
    assert 0.3 < np.mean(joint["label"]) < 0.7
    for value, centre in enumerate((-1, 1)):
        made = model.sample(variables, KEY, 500, given={"label": np.int32(value)})["number"]
        assert abs(made.mean() - centre) < 0.4
        told = model.sample(variables, KEY, 500, given={"number": np.full(1, centre, np.float32)})["label"]
        assert np.mean(told == value) > 0.95
