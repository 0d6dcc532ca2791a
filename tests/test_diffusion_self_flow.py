"""Self-Flow: what the teacher sees, which tokens count, and who learns from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import random_batch

from mmgen_jax.diffusion import Flow, SelfFlow, Times
from mmgen_jax.diffusion.training import corrupted
from mmgen_jax.modalities import Image, Text
from mmgen_jax.nn.dit import FeedForward

MODALITIES = {"image": Image(4, 4, 1, patch=2), "text": Text(6)}
MODEL = Flow(modalities=MODALITIES, width=16, joint=0, depth=3, heads=2, times=Times(tokens=1.0),
             representation=SelfFlow(weight=0.5))  # fmt: skip
T = {"image": jnp.array([[0.2, 0.9, 0.9, 0.2], [0.4, 0.4, 0.4, 0.4]]), "text": jnp.full((2, 2), 0.7)}
TOKENS = jax.random.normal(jax.random.key(0), (2, 6, 8))
PARAMS = SelfFlow().init(jax.random.key(1), 8)
FORETOLD = FeedForward().apply({"params": PARAMS["projection"]}, TOKENS)


def error(late, present):
    """Of tokens of which a teacher makes `late`; and what it was asked for."""
    asked = []

    def look(times, share):
        asked.append((times, share))
        return late

    return SelfFlow().error(PARAMS, TOKENS, T, present, look), *asked


def test_the_teacher_sees_the_cleaner_of_two_times():
    there = dict.fromkeys(T, np.ones(2, bool))
    _, (times, share) = error(FORETOLD, there)
    np.testing.assert_allclose(times["image"], [0.2, 0.4])
    np.testing.assert_allclose(times["text"], [0.7, 0.7])
    assert share == 0.7


def test_error_by_direction_alone():
    there = dict.fromkeys(T, np.ones(2, bool))
    for late, expected in ((3 * FORETOLD, 0), (-FORETOLD, 2), (jnp.roll(FORETOLD, 1, axis=1), None)):
        found = error(late, there)[0]
        cosines = np.sum(FORETOLD * late, -1) / np.linalg.norm(FORETOLD, axis=-1) / np.linalg.norm(late, axis=-1)
        np.testing.assert_allclose(found, np.mean(1 - cosines, axis=1), atol=1e-5)
        assert expected is None or np.abs(found - expected).max() < 1e-5


def test_tokens_that_are_not_there_do_not_count():
    late = jnp.concatenate([FORETOLD[:, :4], -FORETOLD[:, 4:]], axis=1)  # right for the image, wrong for the text
    present = {"image": np.array([True, False]), "text": np.array([False, False])}
    np.testing.assert_allclose(error(late, present)[0], [0, 0], atol=1e-5)
    present = {"image": np.array([True, False]), "text": np.array([True, True])}
    np.testing.assert_allclose(error(late, present)[0], [2 * 2 / 6, 2], atol=1e-5)


def test_the_teacher_has_the_same_noise_and_fewer_of_the_same_masks():
    clean = {"image": jnp.zeros((2, 4, 4, 1)), "text": jnp.ones((2, 6), jnp.int32)}
    noise = {"image": jax.random.normal(jax.random.key(0), (2, 4, 4, 1)), "text": jnp.full((2, 6), 97)}
    late, early = (
        corrupted(MODEL, clean, noise, jax.random.key(1), dict.fromkeys(clean, jnp.full(2, t))) for t in (0.8, 0.4)
    )
    np.testing.assert_allclose(early["image"] * 2, late["image"], rtol=1e-6)
    assert not (early["text"] > late["text"]).any() and (early["text"] < late["text"]).any()


@functools.cache
def gradients():
    """Of the loss (2) alone, by the parameters of the network and of its teacher; the whole loss and its terms."""

    def loss(params, teacher):
        total, terms = MODEL.loss(params, random_batch(MODALITIES, 4), jax.random.key(1), teacher=teacher)
        return terms["representation"].mean(), (total, terms)

    rng, shapes = np.random.default_rng(0), jax.eval_shape(lambda: MODEL.init(jax.random.key(0))[0])
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, params)


def test_early_blocks_and_the_projection_learn_and_the_teacher_does_not():
    (student, teacher), (total, terms) = gradients()
    assert not any(leaf.any() for leaf in jax.tree.leaves(teacher))
    first, *later = student["shared"]["layers"]["stream"]["qkv"]["kernel"]
    assert first.any() and not np.any(later)
    assert all(leaf.any() for leaf in jax.tree.leaves((student["projection"], student["image_in"])))
    parts = terms["loss/image"] + terms["loss/text"] + 0.5 * terms["representation"]
    np.testing.assert_allclose(total, parts, rtol=1e-5)
    assert (terms["representation"] > 0).all() and (terms["representation"] < 2).all()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weight": -1.0}, "weight is -1.0, but must be at least 0"),
        ({"depth": 0.0}, "depth is 0.0, but must be above 0 and at most 1"),
        ({"teacher": 1.5}, "teacher is 1.5, but must be above 0 and at most 1"),
        ({"depth": 0.8}, "depth is 0.8, but must be at most teacher = 0.7"),
    ],
)
def test_what_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=f"SelfFlow: {sentence}"):
        SelfFlow(**fields)


def test_it_needs_tokens_with_times_of_their_own():
    with pytest.raises(ValueError, match="representation is SelfFlow.*, but must be with times.tokens above 0"):
        Flow(modalities=MODALITIES, representation=SelfFlow())
