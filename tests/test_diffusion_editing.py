"""Inpainting and editing: what is kept stays to the last bit, and what is made is right where that is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow_cases import COVARIANCE, RHO, gaussian

from mmgen_jax.diffusion import EDM, Euler, Flow, Guidance, Heun, KarrasGrid, Renoise, Shortcut, Times, edit, inpaint
from mmgen_jax.diffusion.sampling import whole
from mmgen_jax.modalities import Image, Label, Text, Vector

KEY, NOTHING = jax.random.key(0), {"params": {}}
TOKENS = Times(tokens=0.5)
PAIR = {"v": Image(1, 2, 1, patch=1)}  # two values, each a token of its own
MODALITIES = {"image": Image(4, 4, 1, patch=2), "text": Text(6), "label": Label(5)}


def mixed(times, guidance):
    """A small flow of all kinds of values, and parameters."""
    return Flow(
        modalities=MODALITIES, width=16, heads=2, joint=0, depth=1, steps=2, times=times, guidance=Guidance(guidance)
    )


@functools.cache
def variables():
    leaves, tree = jax.tree.flatten(jax.jit(mixed(TOKENS, 1.0).init)(KEY)[0])
    rng = np.random.default_rng(0)
    return {"params": jax.tree.unflatten(tree, [x + 0.2 * rng.normal(size=x.shape).astype("f") for x in leaves])}


def examples(n, seed=0):
    rng = np.random.default_rng(seed)
    text, label = rng.integers(0, 256, (n, 6)).astype(np.int32), rng.integers(0, 5, n).astype(np.int32)
    return {"image": rng.random((n, 4, 4, 1), np.float32), "text": text, "label": label}


def half(n):
    """Of a picture a whole row of tokens and some more values, of a text the even places, of labels every other one."""
    image = (np.arange(4)[:, None, None] < 2) | (np.arange(4)[None, :, None] == 3)
    return {"image": image, "text": np.arange(6) % 2 == 0, "label": np.arange(n) % 2 == 0}


@pytest.mark.parametrize(("times", "guidance"), [(Times(), 1.0), (TOKENS, 1.0), (TOKENS, 2.0)])
def test_what_is_kept_comes_back_to_the_last_bit_and_the_rest_does_not_matter(times, guidance):
    n, model = 2, mixed(times, guidance)
    values, known = examples(n), half(n)
    made = inpaint(model, variables(), KEY, values, known)
    assert list(made) == list(values)
    other = examples(n, seed=1)
    masks = {name: np.broadcast_to(known[name], x.shape) for name, x in values.items()}
    for name, x in values.items():
        assert made[name].shape == x.shape and made[name].dtype == x.dtype
        np.testing.assert_array_equal(made[name][masks[name]], x[masks[name]])
        other[name] = np.where(masks[name], x, np.nan if x.dtype == np.float32 else other[name]).astype(x.dtype)
    assert (made["image"] != values["image"])[~masks["image"]].all()
    assert (made["text"] != values["text"])[~masks["text"]].any()
    again = inpaint(model, variables(), KEY, other, masks)
    jax.tree.map(np.testing.assert_array_equal, again, made)


def test_one_example_with_another_given():
    """A mask of its own; what is given and what is not there are not returned."""
    values, known = examples(1), {"image": half(1)["image"][None]}
    given = {"label": values["label"][0]}
    made = inpaint(mixed(TOKENS, 1.0), variables(), KEY, {"image": values["image"]}, known, given=given)
    assert list(made) == ["image"] and made["image"].shape == (1, 4, 4, 1)
    np.testing.assert_array_equal(made["image"][known["image"]], values["image"][known["image"]])


@functools.cache
def pair(**fields):
    return gaussian(modalities=PAIR, steps=24, **fields)


def rest_of(model, x, n=4000):
    """The second values that are made to fit a first value of x, all standardised."""
    values = jnp.full((n, 1, 2, 1), 0.5 * x + 0.5)
    made = inpaint(model, NOTHING, KEY, {"v": values}, {"v": np.array([True, False]).reshape(1, 2, 1)})["v"]
    np.testing.assert_array_equal(made[:, 0, 0], values[:, 0, 0])
    return 2 * made[:, 0, 1, 0] - 1


@pytest.mark.parametrize("x", [-1.0, 2.0])
def test_what_is_made_is_a_draw_given_the_tokens_that_are_kept(x):
    rest = rest_of(pair(times=TOKENS), x)
    np.testing.assert_allclose(rest.mean(), RHO * x, atol=0.03)
    np.testing.assert_allclose(rest.var(), 1 - RHO**2, atol=0.03)


@pytest.mark.parametrize(("sampler", "low", "high"), [(Heun(), 0.4, 0.5), (Renoise(), 0.75, 0.9)])
def test_without_times_of_tokens_it_follows_them_too_little(sampler, low, high):
    """As the docstring says, so that nobody takes it for a draw."""
    assert low < rest_of(pair(sampler=sampler), 2.0).mean() / (RHO * 2.0) < high


def test_noise_levels_by_themselves_are_kept_on_their_own_path():
    rest = rest_of(pair(times=TOKENS, path=EDM(data_std=1.0), grid=KarrasGrid()), 2.0)
    np.testing.assert_allclose([rest.mean(), rest.var()], [RHO * 2.0, 1 - RHO**2], atol=0.04)


def test_tokens_are_whole_that_have_all_their_values():
    mask = np.zeros((2, 4, 4, 1), bool)
    mask[0, :2, :3] = mask[1, 2:] = True
    np.testing.assert_array_equal(whole(MODALITIES["image"], mask), [[1, 0, 0, 0], [0, 0, 1, 1]])
    np.testing.assert_array_equal(whole(MODALITIES["label"], jnp.array([True, False])), [[1], [0]])


def correlated(n=4000):
    return np.random.default_rng(0).multivariate_normal([0, 0], COVARIANCE, n).astype(np.float32)


@pytest.mark.parametrize("fields", [{}, {"path": EDM(data_std=1.0), "grid": KarrasGrid()}], ids=["flow", "edm"])
def test_an_edited_draw_is_a_draw_and_the_later_it_starts_the_less_like_what_it_was(fields):
    model, v = gaussian(steps=40, **fields), correlated()
    alike = []
    for start in (0.05, 0.5, 0.9):
        made = edit(model, NOTHING, KEY, {"v": v}, start=start)["v"]
        np.testing.assert_allclose(np.cov(made.T), COVARIANCE, atol=0.07)
        alike.append(np.corrcoef(v[:, 0], made[:, 0])[0, 1])
    assert alike[0] > 0.97 and alike[0] > alike[1] + 0.03 and alike[1] > alike[2] + 0.03


def test_from_time_one_nothing_is_left():
    model, n = mixed(Times(), 1.0), 2
    made = edit(model, variables(), KEY, examples(n), start=1)
    jax.tree.map(np.testing.assert_array_equal, made, model.sample(variables(), KEY, n))


def test_symbols_are_drawn_anew_with_the_probability_start():
    model = gaussian(modalities={"v": Vector(2), "text": Text(50)}, steps=10)
    text = np.full((200, 50), 7, np.int32)
    for start in (0.1, 0.5):
        made = edit(model, NOTHING, KEY, {"text": text}, start=start, given={"v": np.zeros(2)})
        assert list(made) == ["text"] and made["text"].max() < 260
        np.testing.assert_allclose((made["text"] != text).mean(), start, atol=0.015)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"values": {}}, "values is empty, but must have at least one modality"),
        ({"values": {"w": np.zeros((3, 2))}}, "'w' is no modality of this model, which has"),
        ({"values": {"v": np.zeros(2)}}, r"values\['v'\] has shape \(2,\), but must have \('n', 2\)"),
        ({"values": {"v": np.zeros((3, 3))}}, r"values\['v'\] has shape \(3, 3\), but must have \('n', 2\)"),
        ({"given": {"v": np.zeros(2)}}, r"\['v'\] are in values and in given, but must be in one of them"),
        ({"given": {"label": np.zeros(4)}}, r"given\['label'\] has shape \(4,\), but must have \(\) or \(3,\)"),
        ({"model": PAIR["v"]}, "model is a Image, but must be a Flow"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change, sentence):
    model = gaussian(modalities={"v": Vector(2), "label": Label(5)})
    task = {"model": model, "variables": NOTHING, "key": KEY, "values": {"v": np.zeros((3, 2))}, **change}
    for how in (edit, functools.partial(inpaint, known={"v": np.ones(2, bool)})):
        with pytest.raises(ValueError, match=sentence):
            how(**task)


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({}, r"known has masks of \[\], but must have those of values, \['v'\]"),
        ({"v": np.ones(2)}, r"known\['v'\] is float.* of shape \(2,\), but must be bool of \(2,\) or \(3, 2\)"),
        (
            {"v": np.ones((1, 2), bool)},
            r"known\['v'\] is bool of shape \(1, 2\), but must be bool of \(2,\) or \(3, 2\)",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(known, sentence):
    with pytest.raises(ValueError, match=sentence):
        inpaint(gaussian(), NOTHING, KEY, {"v": np.zeros((3, 2))}, known)


@pytest.mark.parametrize("start", [0.0, -0.5, 1.5, float("nan")])
def test_a_start_outside_of_time_is_refused(start):
    with pytest.raises(ValueError, match=f"start is {start}, but must be above 0 and at most 1"):
        edit(gaussian(), NOTHING, KEY, {"v": np.zeros((3, 2))}, start=start)


def test_a_start_that_asks_for_steps_of_another_size_is_refused():
    model = gaussian(objective=Shortcut(), sampler=Euler(), steps=4)
    with pytest.raises(ValueError, match=r"start is 0.6, but with Shortcut\(.* must be a multiple of 1 / 4"):
        edit(model, NOTHING, KEY, {"v": np.zeros((3, 2))})
    assert edit(model, NOTHING, KEY, {"v": np.zeros((3, 2))}, start=0.75)["v"].shape == (3, 2)
