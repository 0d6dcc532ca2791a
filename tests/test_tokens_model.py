"""The token transformer: who sees whom, what gets a loss, cached equals uncached, and distributions it must learn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.modalities import Label, Text, Vector, Wordlist
from mmgen_jax.nn.decoder import NOWHERE
from mmgen_jax.nn.transformer import PADDING
from mmgen_jax.report.surprise import surprises
from mmgen_jax.tokens import FSQ, Beam, Choice, MaskGIT, RandomOrder, Tasks, Tokenizer, Tokens, Write
from mmgen_jax.tokens.sampling import make
from mmgen_jax.types import Batch, TrainState

KEY = jax.random.key(0)
VECTOR = Vector(3, features=8)
CODER = Tokenizer(modalities={"vector": VECTOR}, cells={"vector": (4,)}, quantizer=FSQ((3, 2)))
MODALITIES = {"label": Label(3), "text": Text(5, vocabulary=Wordlist(("a", "b", "c"))), "vector": VECTOR}
SIZES = {"width": 16, "depth": 2, "heads": 4, "groups": 2}
MODEL = Tokens(modalities=MODALITIES, first={"vector": CODER}, **SIZES)
NAMES = tuple(MODALITIES)
ENDS = {"label": (0, 2), "text": (2, 8), "vector": (8, 13)}  # the slots of each


@functools.cache
def variables():
    """Larger than fresh ones, so that everything depends on everything that it sees."""
    params, stats = jax.jit(MODEL.init)(KEY)
    shaken = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    return {"params": shaken, **stats}


@functools.cache
def tokens(n=4):
    return {name: jnp.asarray(x) for name, x in MODEL.tokens(variables(), random_batch(MODALITIES, n)).items()}


def there(n=4, **absent):
    return {name: jnp.asarray(absent.get(name, np.ones(n, bool))) for name in MODALITIES}


def test_ranks_say_whose_output_depends_on_whose_input():
    """By gradients: of the output at every slot by what is embedded at every slot."""
    network, params = MODEL.network, variables()["params"]
    rank = jnp.array([[NOWHERE, NOWHERE, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]])
    h = jax.random.normal(KEY, (1, 13, 16))
    turns = jnp.ones((13, 2)), jnp.zeros((13, 2))

    def out(h):
        def run(module, h):
            return module.decoder(h, (rank[:, None, :] <= rank[:, :, None])[:, None], turns)[0]

        return network.apply({"params": params}, h, method=run)[0]

    slopes = np.abs(jax.jit(jax.jacobian(out))(h)[:, :, 0]).sum(axis=(1, 3))  # [output slot, input slot]
    rank = np.asarray(rank[0])
    expected = rank[None] <= rank[:, None]
    np.testing.assert_array_equal(slopes > 0, expected)
    assert not expected[2:8, 8:].any() and expected[8:, 2:8].all() and not expected[2:, :2].any()  # as it should be


def draw(tasks, n=400, **absent):
    values = {name: jnp.tile(x[:1], (n, 1)) for name, x in tokens().items()}
    return jax.jit(lambda key: tasks.draw(key, MODEL.sequences, values, there(n, **absent)))(KEY)


@pytest.mark.parametrize("tasks", [Tasks(0.5), Tasks(0.5, inputs=4, targets=4)])
def test_a_sequence_that_is_only_prefix_or_missing_gets_no_loss(tasks):
    n, missing = 400, np.arange(400) % 2 == 0
    task = draw(tasks, n, text=~missing)
    rank = np.asarray(task.rank)
    for name, (start, stop) in ENDS.items():
        own, counts = rank[:, start:stop], np.asarray(task.counts[name])
        assert not counts[(own == 0) | (own == NOWHERE)].any() and counts.any()
        prefix = (own == 0).any(1)
        assert prefix.any() and not counts[prefix].any()
        assert not ((own == 0).any(1) & ((own > 0) & (own < NOWHERE)).any(1)).any()
    assert (rank[missing, 2:8] == NOWHERE).all() and not np.asarray(task.counts["text"])[missing].any()
    somewhere = np.stack([np.asarray(c).any(1) for c in task.counts.values()]).any(0)
    assert somewhere.mean() > 0.95


def test_masked_examples_have_masks_where_they_count_and_written_ones_have_none():
    task = draw(Tasks(0.5))
    written = np.asarray(task.written)
    assert 0.4 < written.mean() < 0.6
    for name, sequence in MODEL.sequences.items():
        slots, counts = np.asarray(task.slots[name]), np.asarray(task.counts[name])
        right, truth = np.asarray(task.right[name]), np.asarray(tokens()[name][0])[None]
        np.testing.assert_array_equal((slots == sequence.mask)[~written], counts[~written])
        assert not (slots == sequence.mask)[written].any() and counts[~written].any()
        np.testing.assert_array_equal(right[~written][:, 1:], np.repeat(truth, (~written).sum(), axis=0))
        np.testing.assert_array_equal(right[written][:, :-1], np.repeat(truth, written.sum(), axis=0))
        assert (slots[:, 0] == sequence.begin).all()
    masks = np.asarray(task.counts["vector"])[~written].sum(1)
    shares = masks[masks > 0] / 4
    # E[ceil(4 cos(pi r / 2))] / 4 = (1 + P(c > 1/4) + P(c > 1/2) + P(c > 3/4)) / 4
    expected = (1 + sum(np.arccos(c) * 2 / np.pi for c in (0.25, 0.5, 0.75))) / 4
    assert shares.mean() == pytest.approx(expected, abs=0.06)


def test_budgets_bound_what_takes_part():
    task = draw(Tasks(0.5, inputs=4, targets=3))
    rank, chosen = np.asarray(task.rank), np.asarray(task.chosen)
    assert chosen.shape == (400, 7) and all(len(set(row)) == 7 for row in chosen.tolist())
    assert (rank == 0).sum(1).max() <= 4 and ((rank > 0) & (rank < NOWHERE)).sum(1).max() == 3
    taken = np.take_along_axis(rank < NOWHERE, chosen, axis=1).sum(1)
    np.testing.assert_array_equal(taken, (rank < NOWHERE).sum(1))  # nothing that takes part is left out


def test_with_enough_budget_the_network_says_the_same():
    task = draw(Tasks(0.5), 8)
    order = jnp.argsort(jax.random.uniform(KEY, task.rank.shape), axis=1)
    apply = jax.jit(lambda *x: MODEL.network.apply({"params": variables()["params"]}, *x))
    plain, shuffled = (apply(task.slots, task.rank, chosen) for chosen in (None, order))
    for name in MODALITIES:
        np.testing.assert_allclose(shuffled[name], plain[name], atol=1e-4)


DECODINGS = {
    "written": {name: Write(Choice(top_p=0.9, penalty=1.3)) for name in NAMES},
    "filled": {"label": MaskGIT(2), "text": RandomOrder(3), "vector": MaskGIT(3, choice=Choice(top_k=4))},
    "beam": {"text": Beam(3), "label": Beam(2), "vector": Beam(2)},
}


@pytest.mark.parametrize(
    ("decoding", "guidance"),
    [
        ("written", {}),
        ("written", {"scales": {"text": 2.0, "label": 0.5}}),
        ("filled", {"guidance": 2.0}),
        ("filled", {}),
        ("beam", {"guidance": 1.5}),
    ],
)
def test_cached_decoding_is_decoding_without_a_cache_token_for_token(decoding, guidance):
    model = dataclasses.replace(MODEL, decoding=DECODINGS[decoding], **guidance)
    present = there(text=np.array([1, 0, 1, 0], bool), label=np.array([1, 1, 0, 0], bool), vector=np.zeros(4, bool))
    arguments = (model, NAMES, variables()["params"], tokens(), present, jax.random.key(3))
    with_cache, without = make(*arguments), make(*arguments, cached=False)
    jax.tree.map(np.testing.assert_array_equal, with_cache, without)
    for name, sequence in MODEL.sequences.items():
        assert with_cache[name].min() >= 0 and with_cache[name].max() < sequence.size


def test_texts_that_are_made_end_once():
    made = MODEL.sample(variables(), KEY, 64, targets=("text",))["text"]
    for x in np.asarray(made):
        MODALITIES["text"].decode(x)
        ends = np.flatnonzero(x == 1)
        assert (x[: ends[0] if len(ends) else 5] != PADDING).all()
        assert not len(ends) or (x[ends[0] + 1 :] == PADDING).all()


def test_log_likelihood_is_normalised_and_the_sum_of_surprises():
    """Over all texts of up to two words that end, and of all longer ones by what was not said yet; and over labels."""
    batch = random_batch(MODALITIES, 3)
    values = {**batch.values, "label": np.arange(3, dtype=np.int32)}
    values = {name: x if name == "label" else np.repeat(x[:1], 3, axis=0) for name, x in values.items()}
    labels = MODEL.log_likelihood(variables(), Batch(values, batch.present), KEY, ("label",)).value
    assert float(jnp.exp(labels).sum()) == pytest.approx(1, abs=1e-5)
    few = {"label": Label(3), "text": Text(2, vocabulary=Wordlist(("a", "b")))}
    shorter = dataclasses.replace(MODEL, modalities=few, first={})
    params, _ = jax.jit(shorter.init)(KEY)
    texts = np.array([[1, 0], *([a, b] for a in (2, 3) for b in (1, 2, 3))], np.int32)
    every = Batch({"text": texts, "label": np.ones(7, np.int32)}, dict.fromkeys(few, np.ones(7, bool)))
    log_p = shorter.log_likelihood({"params": params, "first": {}}, every, KEY, ("text",)).value
    assert float(jnp.exp(log_p).sum()) == pytest.approx(1, abs=1e-5)
    surprise = shorter.surprise({"params": params, "first": {}}, every, "text")
    np.testing.assert_allclose(-surprise.sum(1), log_p, rtol=1e-6)
    assert surprise[0, 1] == 0 and (np.asarray(surprise[1:]) > 0).all()


def test_a_report_has_the_surprise_of_every_cell():
    few = random_batch(MODALITIES, 3)
    found = surprises(MODEL, variables(), few)
    assert {name: x.shape for name, x in found.items()} == {"label": (3,), "text": (3, 5), "vector": (3, 4)}
    for name, x in found.items():
        np.testing.assert_allclose(
            -x.reshape(3, -1).sum(1), MODEL.log_likelihood(variables(), few, KEY, (name,)).value, rtol=1e-5
        )
    assert surprises(CODER, variables(), few) == {}


def test_what_was_made_has_the_probability_that_it_says():
    """Labels written a thousand times, given a text, against `log_likelihood`."""
    n, batch = 2000, random_batch(MODALITIES, 1)
    text = batch.values["text"][0]
    made = np.asarray(MODEL.sample(variables(), KEY, n, given={"text": text}, targets=("label",))["label"])
    rows = Batch(
        {"label": np.arange(3, dtype=np.int32), "text": np.tile(text, (3, 1)), "vector": np.zeros((3, 3), np.float32)},
        {"label": np.ones(3, bool), "text": np.ones(3, bool), "vector": np.zeros(3, bool)},
    )
    p = np.exp(np.asarray(MODEL.log_likelihood(variables(), rows, KEY, ("label",)).value))
    np.testing.assert_allclose(np.bincount(made, minlength=3) / n, p, atol=0.04)


def test_inpainting_keeps_what_is_kept():
    batch, keep = random_batch(MODALITIES, 4), np.array([[1, 1, 0, 0, 0]] * 4, bool)
    made = MODEL.inpaint(variables(), KEY, batch, "text", keep)
    np.testing.assert_array_equal(made[:, :2], batch.values["text"][:, :2])
    vector = MODEL.inpaint(variables(), KEY, batch, "vector", np.ones((4, 4), bool))
    again = CODER.from_tokens(variables()["first"]["vector"], "vector", tokens()["vector"])
    np.testing.assert_allclose(vector, again, rtol=1e-5)


@pytest.mark.slow
def test_any_modality_follows_from_any_other_after_training():
    """Label l, text "l l" of words, both drawn at once: each says the other, and the label alone is uniform."""
    words = np.array([[2, 2, 1, 0, 0], [3, 3, 1, 0, 0], [4, 4, 1, 0, 0]], np.int32)
    model = Tokens(modalities={n: MODALITIES[n] for n in ("label", "text")}, width=32, depth=2, heads=2)
    tx = optax.adam(3e-3)
    state = jax.jit(lambda key: TrainState.create(model, tx, key))(KEY)

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(state):
        def one(state, i):
            key = jax.random.fold_in(jax.random.key(1), i)
            y = jax.random.randint(key, (64,), 0, 3)
            present = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.8, (2, 64))
            there = dict(zip(("label", "text"), present, strict=True))
            return model.step(tx, state, Batch({"label": y, "text": jnp.asarray(words)[y]}, there), key)

        return jax.lax.scan(one, state, jnp.arange(300))

    state, metrics = steps(state)
    text = model.sample(state.variables, KEY, 30, given={"label": np.int32(2)})["text"]
    assert (np.asarray(text) == words[2]).all(1).mean() > 0.9
    label = model.sample(state.variables, KEY, 30, given={"text": words[1]})["label"]
    assert (np.asarray(label) == 1).mean() > 0.9
    both = model.sample(state.variables, KEY, 300)
    assert (np.asarray(both["text"]) == words[np.asarray(both["label"])]).all(1).mean() > 0.9
    np.testing.assert_allclose(np.bincount(both["label"], minlength=3) / 300, 1 / 3, atol=0.12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 12}, "width is 12, but must be a multiple of 8"),
        ({"groups": 3}, "groups is 3, but must be None or a divisor of the 4 heads"),
        ({"first": {}}, r"first has tokenizers of [], but 'vector' is of real values, so it must have one"),
        ({"first": {"vector": CODER, "label": CODER}}, "'label' is of symbols, so it must have none"),
        ({"modalities": {"vector": Vector(4)}}, "first['vector'] must be a Tokenizer of 'vector' as it is here"),
        ({"decoding": {"x": Write()}}, "decoding names ['x'], but the modalities are"),
        ({"guidance": 2.0, "scales": {"text": 1.0}}, "guidance is 2.0, but must be 1 where there are scales"),
        ({"weights": {"text": -1.0}}, "weights['text'] is -1.0, but must be at least 0"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(MODEL, **fields)
    assert message in str(error.value)


def test_wrong_tasks_and_decodings_are_named():
    for make_one, message in (
        (lambda: Tasks(1.5), "Tasks: autoregressive is 1.5"),
        (lambda: Tasks(inputs=3), "Tasks: inputs is 3 and targets None"),
        (lambda: Tasks(inputs=3, targets=0), "Tasks: targets is 0"),
        (lambda: MaskGIT(0), "steps is 0"),
        (lambda: MaskGIT(choice=Choice(penalty=2.0)), "MaskGIT: choice has penalty 2.0"),
        (lambda: RandomOrder(0), "RandomOrder: steps is 0"),
        (lambda: Beam(0), "Beam: width is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_one()
    with pytest.raises(ValueError, match="'x' is no modality"):
        MODEL.log_likelihood(variables(), random_batch(MODALITIES, 1), KEY, ("x",))
