"""Decoding with functions that are known: draws have their frequencies, beams find the best, masks are filled."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.nn import maskgit
from mmgen_jax.tokens.decoding import Choice, beam, guided, in_random_order, write, written

KEY = jax.random.key(0)
V, L = 4, 3
TABLE = jax.random.normal(jax.random.key(3), (L, V + 1, V))  # logits of place i after token j, V before the first


def step(memory, tokens, i):
    """A chain; it remembers how often it was called, and the last token, which must be that of its row."""
    calls, rows = memory
    before = jnp.where(i == 0, V, tokens[:, jnp.maximum(i - 1, 0)])
    return TABLE[i, before] + rows[:, None] * 0, (calls + 1, before.astype(float))


def memory(n):
    return jnp.zeros(n, int), jnp.zeros(n)


def all_of_them():
    """log p of every sequence, [V^L], in order of their digits."""
    log_p = jax.nn.log_softmax(TABLE)
    every = itertools.product(range(V), repeat=L)
    return np.array([sum(float(log_p[i, V if i == 0 else s[i - 1], s[i]]) for i in range(L)) for s in every])


def test_what_is_written_has_its_probability():
    tokens = jax.jit(lambda key: write(key, step, memory(20_000), 20_000, L))(KEY)
    numbers = np.asarray(tokens) @ V ** np.arange(L)[::-1]
    found = np.bincount(numbers, minlength=V**L) / len(numbers)
    np.testing.assert_allclose(found, np.exp(all_of_them()), atol=0.012)


def test_temperature_zero_takes_the_most_probable_and_the_end_ends():
    tokens = jax.jit(lambda key: write(key, step, memory(2), 2, L, Choice(temperature=0.0)))(KEY)
    best, before = [], V
    for i in range(L):
        before = int(jnp.argmax(TABLE[i, before]))
        best.append(before)
    np.testing.assert_array_equal(tokens, [best, best])
    ended = jax.jit(lambda key: write(key, step, memory(500), 500, L, end=2, padding=3))(KEY)
    ends = np.cumsum(np.asarray(ended) == 2, axis=1) - (np.asarray(ended) == 2)
    assert (np.asarray(ended)[ends > 0] == 3).all() and (ends > 0).any()
    np.testing.assert_array_equal(written(jnp.array([[2, 3, 3], [0, 2, 3], [0, 1, 3]]), 2), [1, 2, 3])


def test_the_widest_beam_finds_the_best_of_all_sequences():
    tokens, scores = jax.jit(lambda: beam(step, memory(2), 2, L, V**L))()
    everything = all_of_them()
    np.testing.assert_allclose(scores, np.sort(everything)[::-1][None].repeat(2, 0), rtol=1e-5)
    np.testing.assert_array_equal(tokens[0] @ V ** np.arange(L)[::-1], np.argsort(-everything))
    narrow, score = jax.jit(lambda: beam(step, memory(2), 2, L, 1))()
    greedy = jax.jit(lambda: write(KEY, step, memory(2), 2, L, Choice(temperature=0.0)))()
    np.testing.assert_array_equal(narrow[:, 0], greedy)
    assert float(score[0, 0]) <= float(scores[0, 0])


def test_beams_that_ended_wait_for_the_others():
    tokens, scores = jax.jit(lambda: beam(step, memory(1), 1, L, 30, end=2, padding=3))()
    log_p = jax.nn.log_softmax(TABLE)
    for row, score in zip(np.asarray(tokens[0]), np.asarray(scores[0]), strict=True):
        n = int(written(jnp.asarray(row), 2))
        assert (row[n:] == 3).all()
        expected = sum(float(log_p[i, V if i == 0 else row[i - 1], row[i]]) for i in range(n))
        assert score == pytest.approx(expected, rel=1e-4)
    assert len({tuple(row) for row in tokens[0].tolist()}) == 30


def test_choices():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    p = lambda choice, seen=None: np.asarray(jax.nn.softmax(choice.logits(logits, seen)))  # noqa: E731
    np.testing.assert_allclose(p(Choice()), [0.5, 0.3, 0.15, 0.05], rtol=1e-5)
    np.testing.assert_allclose(p(Choice(top_k=2)), [0.625, 0.375, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(p(Choice(top_p=0.7)), [0.625, 0.375, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(p(Choice(top_p=0.81)), np.array([0.5, 0.3, 0.15, 0]) / 0.95, rtol=1e-5)
    np.testing.assert_allclose(p(Choice(temperature=0.5)), np.array([25, 9, 2.25, 0.25]) / 36.5, rtol=1e-5)
    np.testing.assert_allclose(p(Choice(temperature=0.0)), [1, 0, 0, 0])
    seen = jnp.array([True, False, False, False])
    np.testing.assert_allclose(p(Choice(penalty=2.0), seen), np.array([0.25, 0.3, 0.15, 0.05]) / 0.75, rtol=1e-5)
    with pytest.raises(ValueError, match="Choice: top_p is 0, but must be above 0"):
        Choice(top_p=0)
    with pytest.raises(ValueError, match="Choice: top_k is 0, but must be at least 1"):
        Choice(top_k=0)


def test_guidance_sharpens_what_a_condition_adds():
    a, b, c = jax.nn.log_softmax(jax.random.normal(KEY, (3, 2, 5)))
    np.testing.assert_allclose(guided(jnp.stack([a, b]), (1.0,)), b, atol=1e-6)
    np.testing.assert_allclose(guided(jnp.stack([a, b]), (3.0,)), a + 3 * (b - a), atol=1e-5)
    np.testing.assert_allclose(guided(jnp.stack([a, b, c]), (2.0, 0.5)), 0.5 * c + 2 * b - 1.5 * a, atol=1e-5)


@pytest.mark.parametrize("decode", [in_random_order, maskgit.decode])
def test_masks_are_filled_in_as_many_steps_as_asked_and_the_rest_stays(decode):
    start = jnp.array([[4, 1, 4, 4, 4, 4, 4, 4], [0, 4, 4, 4, 4, 4, 4, 3]])
    counts = []

    def predict(tokens):
        jax.debug.callback(lambda n: counts.append(np.asarray(n)), (tokens == 4).sum(-1))
        return jnp.zeros((*tokens.shape, 4)).at[:, 2, 1].set(50.0)

    out = jax.jit(lambda key: decode(key, predict, start, 3, 4))(KEY)
    jax.effects_barrier()
    np.testing.assert_array_equal(jnp.where(start == 4, 0, out), jnp.where(start == 4, 0, start))
    assert (out < 4).all() and (out[:, 2] == 1).all()
    left = np.array(counts)
    assert len(left) == 3 and (left[0] == [7, 6]).all() and (np.diff(left, axis=0) < 0).all()
