"""What every modality promises, at every size: arrays in and out, files that open, networks and tokens that fit."""

import dataclasses
import functools
import io
import json
import wave

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow

import mmgen_jax.modalities as mm
from mmgen_jax.types import Modality

KEY = jax.random.key(0)
SMALL = {"features": 4}


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def wobble(samples: int) -> np.ndarray:
    return np.sin(0.3 * np.arange(samples)).astype(np.float32)


# Each with something raw. Sizes of one, odd ones, ones no patch divides; 1, 2, 3, 4 and 5 channels; every likelihood.
MODALITIES = [
    (mm.Image(13, 16, 1, **SMALL), pixels(13, 16)),
    (mm.Image(1, 1, 3, **SMALL), pixels(1, 1, 3)),
    (mm.Image(7, 5, 4, likelihood=mm.Normal(None), patch=3, **SMALL), pixels(7, 5, 4)),
    (mm.Image(9, 2, 5, likelihood=mm.DiscretizedLogistic(), **SMALL), pixels(9, 2, 5)),
    (mm.Image(6, 6, 1, likelihood=mm.Bernoulli(), **SMALL), pixels(6, 6) > 127),
    (mm.Video(3, 8, 7, 1, likelihood=mm.Laplace(0.1), **SMALL), pixels(3, 8, 7)),
    (mm.Video(1, 1, 1, 3, **SMALL), pixels(1, 1, 1, 3)),
    (mm.Video(5, 4, 6, 2, fps=12.5, tubelet=(3, 2, 4), **SMALL), pixels(5, 4, 6, 2)),
    (mm.Audio(99, rate=8000, hop=32, patch=1, **SMALL), wobble(99)),
    (mm.Audio(1, rate=8000, **SMALL), wobble(1)),
    (mm.Audio(1000, rate=8000, mels=20, window=256, hop=100, patch=3, **SMALL), wobble(1000)),
    (mm.Audio(1, rate=8000, mels=1, likelihood=mm.Normal(None), **SMALL), wobble(1)),
    (mm.Text(length=12, **SMALL), "A 3, mm?"),
    (mm.Text(length=1, **SMALL), ""),
    (mm.Text(length=9, vocabulary=mm.Bytes(), layers=2, **SMALL), "été 7!"),
    (mm.Text(length=4, vocabulary=mm.Characters("ab"), **SMALL), "aba"),
    (mm.Text(length=6, vocabulary=mm.Wordlist((",", "a", "one")), **SMALL), "a one, one"),
    (mm.Label(3, names=("cat", "dog", "owl"), **SMALL), "dog"),
    (mm.Label(1, **SMALL), 0),
    (mm.LabelMap(3, 5, 4, **SMALL), [[0, 1, 2, 3, 0], [1] * 5, [2, 3, 3, 3, 1]]),
    (mm.LabelMap(1, 1, 1, **SMALL), [[0]]),
    (mm.Vector(5, **SMALL), [1, -2.5, 0, 1e3, 3e-8]),
    (mm.Vector(1, likelihood=mm.Normal(None), **SMALL), [7]),
    (mm.Vector(4, likelihood=mm.Bernoulli(), **SMALL), [True, False, False, True]),
]


def name_of(case: object) -> str:
    if not isinstance(case, Modality):
        return ""
    return "-".join([type(case).__name__, *map(str, case.shape), type(case.likelihood).__name__])


every = pytest.mark.parametrize("modality, raw", MODALITIES, ids=name_of)
every_modality = pytest.mark.parametrize("modality", [m for m, _ in MODALITIES], ids=name_of)


def use(modality: Modality, dtype, x: jax.Array) -> dict[str, jax.Array]:
    """Everything that the networks of a modality give for x [B, *shape], and their parameters."""

    def start(network: nn.Module, *inputs: jax.Array):
        # Parameters of the right shapes straight from numpy: compiling the initialisers would take most of the time.
        shapes = jax.eval_shape(network.init, KEY, *inputs)
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), shapes)
        return params, functools.partial(network.apply, params)

    z = jnp.full((len(x), 3), 0.3)
    encoder, encode = start(modality.encoder_network(6, dtype), x)
    inputs = (z, x) if isinstance(modality, mm.Text) else (z,)
    decoder, decode = start(modality.decoder_network(dtype), *inputs)
    embed, tokens_in = start(modality.tokens_in(8, dtype), x)
    tokens = tokens_in(x)
    head, tokens_out = start(modality.tokens_out(dtype), tokens)
    out = tokens_out(tokens)
    return {
        "params": (encoder, decoder, embed, head),
        "features": encode(x),
        "decoded": decode(*inputs),
        "log_prob": modality.log_prob(decode, z, x),
        "mean": modality.generate(decode, z, None),
        "sample": modality.generate(decode, z, KEY),
        "tokens": tokens,
        "out": out,
        "token_log_prob": modality.likelihood.log_prob(out, x),
    }


def batch_of(modality: Modality, raw: object, n: int) -> jax.Array:
    return jnp.stack([jnp.asarray(modality.encode(raw))] * n)


@every
def test_round_trip(modality: Modality, raw: object) -> None:
    x = modality.encode(raw)
    assert isinstance(modality, Modality)
    assert type(x) is np.ndarray and x.shape == modality.shape and x.dtype == modality.dtype
    assert np.isfinite(x).all()
    if not (isinstance(modality, mm.Audio) and modality.mels):  # a spectrogram has no phases: tested by its sound
        np.testing.assert_array_equal(modality.encode(modality.decode(x)), x)
        np.testing.assert_array_equal(modality.encode(modality.decode(jnp.asarray(x))), x)


@every
def test_render_opens_again(modality: Modality, raw: object) -> None:
    rendering = modality.render(modality.encode(raw))
    if rendering.suffix in ("png", "gif"):
        with Pillow.open(io.BytesIO(rendering.data)) as picture:
            assert picture.format.lower() == rendering.suffix
            picture.load()
    elif rendering.suffix == "wav":
        with wave.open(io.BytesIO(rendering.data)) as file:
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
            assert (file.getnframes(), file.getframerate()) == (modality.samples, modality.rate)
    else:
        assert rendering.suffix == "txt" and rendering.data.decode() == str(modality.decode(modality.encode(raw)))


@every_modality
def test_what_a_network_makes_can_be_shown(modality: Modality) -> None:
    """Far outside the range of real data, and not a number."""
    if modality.dtype == np.float32:
        for value in (1e6, -1e6, np.nan):
            assert modality.render(np.full(modality.shape, value, np.float32)).data


@every
def test_shapes_and_dtypes_of_networks(modality: Modality, raw: object) -> None:
    """By tracing alone, with a batch of one, where a squeeze would show."""
    made = jax.eval_shape(functools.partial(use, modality, jnp.float32), batch_of(modality, raw, 1))
    assert made["features"].shape == (1, 6)
    assert made["decoded"].shape == made["out"].shape == (1, *modality.likelihood.out_shape(modality.shape))
    for name in ("log_prob", "token_log_prob"):
        assert made[name].shape == (1,) and made[name].dtype == jnp.float32
    for name in ("mean", "sample"):
        assert made[name].shape == (1, *modality.shape) and made[name].dtype == modality.dtype
    assert made["tokens"].shape == (1, len(modality.positions()), 8)
    assert modality.positions().dtype == np.float32


@every
def test_a_value_goes_into_its_own_token_and_no_other(modality: Modality, raw: object) -> None:
    token_of, x = modality.token_of(), modality.encode(raw)
    assert token_of.shape == modality.shape and token_of.dtype == np.int32
    np.testing.assert_array_equal(np.unique(token_of), np.arange(len(modality.positions())))
    if getattr(modality, "classes", 2) == 1:
        return  # has no other value
    places = np.unique(np.linspace(0, x.size - 1, 40).astype(int))
    rows = np.tile(x.ravel(), (1 + len(places), 1))  # x, and for each place x with another value there
    rows[np.arange(len(places)) + 1, places] = abs(x.ravel()[places]) < 0.5
    network, rng = modality.tokens_in(8), np.random.default_rng(0)
    rows = jnp.asarray(rows.reshape(-1, *modality.shape))
    shapes = jax.eval_shape(network.init, KEY, rows)
    tokens = network.apply(jax.tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), shapes), rows)
    expected = token_of.ravel()[places, None] == np.arange(tokens.shape[1])
    np.testing.assert_array_equal(np.any(tokens[1:] != tokens[:1], axis=-1), expected)


@pytest.mark.parametrize("modality, raw", [MODALITIES[i] for i in (4, 6, 11, 15, 16, 19)], ids=name_of)
def test_values_of_networks_at_two_precisions(modality: Modality, raw: object) -> None:
    x = batch_of(modality, raw, 2)
    half, exact = (jax.jit(functools.partial(use, modality, dtype))(x) for dtype in (jnp.bfloat16, jnp.float32))
    assert {p.dtype for p in jax.tree.leaves(half["params"])} == {jnp.dtype(jnp.float32)}
    for name in ("features", "decoded", "tokens", "out"):
        assert jnp.isfinite(exact[name]).all(), name
        np.testing.assert_allclose(exact[name][0], exact[name][1], rtol=1e-4, atol=1e-5)  # each example by itself
    for name in ("log_prob", "token_log_prob"):
        assert half[name].dtype == jnp.float32
        np.testing.assert_allclose(half[name], exact[name], rtol=0.05)
    for name in ("mean", "sample"):
        assert isinstance(modality.render(np.asarray(exact[name][0])).data, bytes)


@every_modality
def test_is_a_value(modality: Modality) -> None:
    assert dataclasses.replace(modality) == modality and hash(dataclasses.replace(modality)) == hash(modality)
    assert dataclasses.replace(modality, features=9) != modality
    json.dumps(dataclasses.asdict(modality))


class Mean(nn.Module):
    """A user's encoder: no outputs to choose, features only."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(len(x), -1).astype(jnp.float32).mean(axis=1, keepdims=True)


class Constant(nn.Module):
    """A user's decoder."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: jax.Array, tokens: jax.Array | None = None) -> jax.Array:
        return jnp.broadcast_to(self.param("out", nn.initializers.zeros, self.shape), (len(z), *self.shape))

    def generate(self, z: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return jnp.ones((len(z), self.shape[0]), jnp.int32)


@pytest.mark.parametrize("modality, raw", [MODALITIES[i] for i in (1, 12, 16, 18)], ids=name_of)
def test_own_networks(modality: Modality, raw: object) -> None:
    own = Constant(modality.likelihood.out_shape(modality.shape))
    modality = dataclasses.replace(modality, encoder=Mean(), decoder=own)
    assert hash(modality) == hash(dataclasses.replace(modality))
    x = batch_of(modality, raw, 1)
    made = jax.jit(functools.partial(use, modality, jnp.float32))(x)
    encoder, decoder, *_ = made["params"]
    expected = modality.likelihood.log_prob(decoder["params"]["out"][None], x)
    assert encoder["params"]["Dense_0"]["kernel"].shape == (1, 6)  # one feature in, six outputs
    np.testing.assert_allclose(made["log_prob"], expected, rtol=1e-6)
    assert made["features"].shape == (1, 6) and made["mean"].shape == (1, *modality.shape)


@pytest.mark.parametrize("modality", [m for m, _ in MODALITIES if m.shape], ids=name_of)
def test_a_wrong_shape_is_named(modality: Modality) -> None:
    wrong = np.zeros((*modality.shape, 2), modality.dtype)
    sentence = f"{type(modality).__name__}: one example has shape {modality.shape}, but the array has {wrong.shape}."
    with pytest.raises(ValueError) as caught:
        modality.decode(wrong)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: mm.Image(0, 4), "Image: height must be a whole number of at least 1, not 0."),
        (lambda: mm.Image(4, 4.0), "Image: width must be a whole number of at least 1, not 4.0."),
        (lambda: mm.Image(4, 4, True), "Image: channels must be a whole number of at least 1, not True."),
        (lambda: mm.Image(4, 4, patch=-1), "Image: patch must be a whole number of at least 1, not -1."),
        (
            lambda: mm.Image(4, 4, likelihood=mm.Categorical(3)),
            "Image: likelihood Categorical(classes=3, ignore=None) cannot score the values of this modality.",
        ),
        (
            lambda: mm.Image(4, 4, likelihood=mm.Normal),
            "Image: likelihood must be an instance such as Normal(), not "
            "<class 'mmgen_jax.modalities.likelihoods.Normal'>.",
        ),
        (
            lambda: mm.Image(4, 4, encoder=len),
            "Image: encoder must be an instance of a flax.linen module or None, not <built-in function len>.",
        ),
        (lambda: mm.Video(8, 4, 4, fps=0), "Video: fps must be a number above 0, not 0."),
        (
            lambda: mm.Video(8, 4, 4, tubelet=(2, 8)),
            "Video: tubelet must be a tuple of three whole numbers of at least 1, not (2, 8).",
        ),
        (lambda: mm.Audio(8, rate=8000.0), "Audio: rate must be a whole number of at least 1, not 8000.0."),
        (lambda: mm.Audio(8, mels=0), "Audio: mels must be a whole number of at least 1, not 0."),
        (lambda: mm.Audio(8, hop=300), "Audio: window must be even and at least twice the hop, not 512 with hop=300."),
        (
            lambda: mm.Audio(8, rate=8000, mels=400),
            "Audio: mels=400 leaves bands without a frequency at window=512, "
            "rate=8000: take fewer mels or a longer window.",
        ),
        (
            lambda: mm.Audio(8, likelihood=mm.Bernoulli()),
            "Audio: likelihood Bernoulli() cannot score the values of this modality.",
        ),
        (lambda: mm.Text(0), "Text: length must be a whole number of at least 1, not 0."),
        (lambda: mm.Text(8, vocabulary="abc"), "Text: vocabulary must be a tokenizer such as Characters(), not 'abc'."),
        (lambda: mm.Characters(""), "Characters: alphabet must hold characters, each once, not ''."),
        (lambda: mm.Wordlist(("a", "a")), "Wordlist: words must be different words and marks, not ('a', 'a')."),
        (lambda: mm.Wordlist(("a b",)), "Wordlist: 'a b' is not one word or one mark."),
        (lambda: mm.Characters("aba"), "Characters: alphabet must hold characters, each once, not 'aba'."),
        (lambda: mm.Label(2, names=("a",)), "Label: names must be a tuple of 2 different names or empty, not ('a',)."),
        (
            lambda: mm.Label(2, names=("a", "a")),
            "Label: names must be a tuple of 2 different names or empty, not ('a', 'a').",
        ),
        (
            lambda: mm.Label(2, names=["a", "b"]),
            "Label: names must be a tuple of 2 different names or empty, not ['a', 'b'].",
        ),
        (lambda: mm.Vector(0), "Vector: dim must be a whole number of at least 1, not 0."),
    ],
)
def test_errors_of_fields(make, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence
