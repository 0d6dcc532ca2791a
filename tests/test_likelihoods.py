"""Likelihoods are densities: they agree with scipy and stored numbers, sum to one, and stay finite far out."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mmgen_jax.modalities import Bernoulli, Categorical, DiscretizedLogistic, Laplace, Normal

KEY = jax.random.key(0)
ALL = [
    Normal(),
    Normal(0.1),
    Normal(None),
    Laplace(0.75),
    Bernoulli(),
    Categorical(5),
    Categorical(5, ignore=0),
    DiscretizedLogistic(),
    DiscretizedLogistic(levels=2),
]
NAMES = [str(likelihood) for likelihood in ALL]


@functools.partial(jax.jit, static_argnums=0)
def log_prob(likelihood, out, x):
    """Compiled: one by one, the operations would each be compiled for every shape."""
    return likelihood.log_prob(out, x)


def each_alone(values: np.ndarray) -> np.ndarray:
    """Every value as an example of its own, [n, 1]."""
    return values.reshape(-1, 1)


def example(likelihood, shape=(3, 4, 2), seed=0):
    """Random out and a value it may score, batch first."""
    rng = np.random.default_rng(seed)
    out = jnp.asarray(rng.normal(size=(shape[0], *likelihood.out_shape(shape[1:]))), jnp.float32)
    return out, likelihood.sample(out, jax.random.key(seed))


def test_golden_primitives(golden_vae: Path) -> None:
    if golden_vae.stem != "primitives":
        pytest.skip("not about likelihoods")
    z = np.load(golden_vae)
    scale = json.loads(str(z["meta"]))["scale"]
    with jax.enable_x64(True):
        recon, target, binary = (each_alone(z[k]) for k in ("recon", "target", "target_binary"))
        normal, laplace = log_prob(Normal(scale), recon, target), log_prob(Laplace(scale), recon, target)
        bernoulli = log_prob(Bernoulli(), recon, binary)
        onehot = z["target_onehot"]
        categorical = log_prob(Categorical(onehot.shape[-1]), z["recon"], onehot.argmax(-1))
    np.testing.assert_allclose(normal, z["log_prob_normal"].ravel(), rtol=1e-10)
    np.testing.assert_allclose(laplace, z["log_prob_laplace"].ravel(), rtol=1e-10)
    np.testing.assert_allclose(bernoulli, z["log_prob_bernoulli"].ravel(), rtol=1e-10)
    np.testing.assert_allclose(categorical, z["log_prob_categorical"].sum(-1), rtol=1e-10)


def test_equals_scipy_summed_over_the_event() -> None:
    rng = np.random.default_rng(0)
    out, x = rng.normal(size=(2, 3, 4, 2)).astype(np.float32)
    learned = rng.normal(size=(3, 4, 4)).astype(np.float32)
    scale = np.exp(7 * np.tanh(learned[..., 2:] / 7))
    bits, classes = (x > 0).astype(np.float32), rng.integers(2, size=(3, 4))
    expected = {
        Normal(0.3): (out, x, scipy.stats.norm(out, 0.3).logpdf(x)),
        Normal(None): (learned, x, scipy.stats.norm(learned[..., :2], scale).logpdf(x)),
        Laplace(0.75): (out, x, scipy.stats.laplace(out, 0.75).logpdf(x)),
        Bernoulli(): (out, bits, scipy.stats.bernoulli(1 / (1 + np.exp(-out))).logpmf(bits)),
        Categorical(2): (out, classes, np.take_along_axis(scipy.special.log_softmax(out, -1), classes[..., None], -1)),
    }
    for likelihood, (output, value, log_p) in expected.items():
        actual = log_prob(likelihood, jnp.asarray(output), jnp.asarray(value))
        np.testing.assert_allclose(actual, log_p.reshape(3, -1).sum(1), rtol=2e-5, err_msg=str(likelihood))


def test_discretized_logistic_equals_differences_of_the_cdf() -> None:
    """Equation 2 of PixelCNN++, in float64 by scipy, with open edges."""
    levels = np.arange(256) / 255
    for mean, raw in ((0.5, -2.0), (0.02, -3.0), (0.98, 0.0), (-0.3, -1.0)):
        cdf = scipy.stats.logistic(mean, np.exp(7 * np.tanh(raw / 7))).cdf
        upper, lower = cdf(levels + 0.5 / 255), cdf(levels - 0.5 / 255)
        upper[-1], lower[0] = 1.0, 0.0
        out = jnp.tile(jnp.asarray([[mean, raw]]), (256, 1))
        log_p = log_prob(DiscretizedLogistic(), out, each_alone(levels.astype(np.float32)))
        np.testing.assert_allclose(np.exp(log_p), upper - lower, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("likelihood", [Normal(0.3), Normal(None), Laplace(0.75)], ids=str)
def test_integrates_to_one(likelihood) -> None:
    x = np.linspace(-60, 60, 400_001, dtype=np.float32)
    out = jnp.tile(jnp.asarray([[0.4, 0.3]])[:, : likelihood.out_shape((1,))[0]], (len(x), 1))
    density = np.exp(np.asarray(log_prob(likelihood, out, each_alone(x)), np.float64))
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("levels", [2, 3, 256])
@pytest.mark.parametrize("mean, raw", [(0.3, -1.0), (0.5, -9.0), (7.0, 2.0), (-1e4, -3.0), (0.2, 50.0)])
def test_discretized_logistic_sums_to_one(levels: int, mean: float, raw: float) -> None:
    x = jnp.arange(levels, dtype=jnp.float32)[:, None] / (levels - 1)
    log_p = log_prob(DiscretizedLogistic(levels), jnp.tile(jnp.asarray([[mean, raw]]), (levels, 1)), x)
    assert np.exp(np.asarray(log_p, np.float64)).sum() == pytest.approx(1, abs=1e-4)
    assert log_p.max() <= 0


def test_classes_and_coins_sum_to_one() -> None:
    logits = jnp.asarray([[3.0, -40.0, 0.5]])
    mass = [jnp.exp(log_prob(Categorical(3), logits, jnp.asarray([k])))[0] for k in range(3)]
    assert sum(mass) == pytest.approx(1, abs=1e-6)
    for logit in (-200.0, 0.3, 40.0):
        out = jnp.asarray([[logit]])
        both = [jnp.exp(log_prob(Bernoulli(), out, jnp.full((1, 1), bit)))[0] for bit in (0.0, 1.0)]
        assert sum(both) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("likelihood", ALL, ids=NAMES)
@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
def test_value_and_gradient_are_finite_far_out(likelihood, size: float) -> None:
    out, x = example(likelihood)
    value, gradient = jax.value_and_grad(lambda o: log_prob(likelihood, o, x).sum())(jnp.full_like(out, size))
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


@pytest.mark.parametrize("likelihood", ALL, ids=NAMES)
def test_shapes_and_dtypes_at_any_precision(likelihood) -> None:
    out, x = example(likelihood)
    half = log_prob(likelihood, out.astype(jnp.bfloat16), x)
    exact = log_prob(likelihood, out.astype(jnp.bfloat16).astype(jnp.float32), x)
    assert half.shape == (3,) and half.dtype == jnp.float32
    np.testing.assert_array_equal(half, exact)  # rounded once, at the input: no arithmetic in half precision
    integers = isinstance(likelihood, Categorical)
    for made in (likelihood.mean(out), likelihood.sample(out, KEY), likelihood.mean(out.astype(jnp.bfloat16))):
        assert made.shape == (3, 4, 2) and made.dtype == (jnp.int32 if integers else jnp.float32)


@pytest.mark.parametrize(
    "likelihood, out",
    [
        (Normal(0.3), [0.7]),
        (Normal(None), [0.7, -0.5]),
        (Laplace(0.75), [0.7]),
        (Bernoulli(), [0.7]),
        (DiscretizedLogistic(levels=5), [0.4, -1.0]),
    ],
    ids=str,
)
def test_samples_have_the_moments_of_the_density(likelihood, out: list[float]) -> None:
    """Mean and variance of 100,000 samples against sums over the density itself."""
    support = np.linspace(-12, 12, 200_001)
    if isinstance(likelihood, Bernoulli | DiscretizedLogistic):
        support = np.linspace(0, 1, getattr(likelihood, "levels", 2))
    many = jnp.tile(jnp.asarray([out]), (len(support), 1))
    weight = np.exp(np.asarray(log_prob(likelihood, many, each_alone(support.astype(np.float32))), np.float64))
    weight /= weight.sum()
    mean = (weight * support).sum()
    variance = (weight * (support - mean) ** 2).sum()
    samples = likelihood.sample(jnp.tile(jnp.asarray([out]), (100_000, 1)), KEY)
    assert samples.mean() == pytest.approx(mean, abs=5 * (variance / 1e5) ** 0.5)
    assert samples.var() == pytest.approx(variance, rel=0.03)


def test_samples_of_classes_have_their_frequencies() -> None:
    logits = jnp.log(jnp.asarray([0.5, 0.3, 0.2]))
    samples = Categorical(3).sample(jnp.tile(logits, (50_000, 1)), KEY)
    np.testing.assert_allclose(np.bincount(samples) / 50_000, [0.5, 0.3, 0.2], atol=0.01)


def test_the_learned_scale_finds_the_error() -> None:
    """The best constant log scale of a Gaussian is the log of the root mean square error."""
    error = 0.02 * jax.random.normal(KEY, (1, 4000))

    def nll(raw: jax.Array) -> jax.Array:
        return -log_prob(Normal(None), jnp.concatenate([jnp.zeros((1, 4000)), jnp.full((1, 4000), raw)], 1), error)[0]

    raws = jnp.linspace(-7, 0, 1401)
    best = raws[jax.vmap(nll)(raws).argmin()]
    assert jnp.exp(7 * jnp.tanh(best / 7)) == pytest.approx(float(jnp.sqrt(jnp.mean(error**2))), rel=0.02)


def test_the_learned_scale_stays_in_its_range() -> None:
    perfect = jnp.zeros((1, 1))
    sharpest = log_prob(Normal(None), jnp.asarray([[0.0, -1e9]]), perfect)
    assert sharpest[0] == pytest.approx(7 - 0.5 * np.log(2 * np.pi), abs=1e-4)


def test_means() -> None:
    np.testing.assert_array_equal(Normal(0.1).mean(jnp.asarray([[-3.0, 2.0]])), [[-3, 2]])  # never squashed
    np.testing.assert_array_equal(Normal(None).mean(jnp.asarray([[-3.0, 2.0]])), [[-3]])
    np.testing.assert_allclose(Bernoulli().mean(jnp.asarray([[0.0, 50.0]])), [[0.5, 1]])
    np.testing.assert_array_equal(Categorical(3).mean(jnp.asarray([[0.0, 2.0, 1.0]])), [1])
    np.testing.assert_allclose(DiscretizedLogistic(3).mean(jnp.asarray([[9.0, -1.0, 0.3, 0, 0, 0]])), [[1, 0, 0.5]])


def test_ignored_classes_score_nothing_and_have_no_gradient() -> None:
    logits, x = jax.random.normal(KEY, (2, 3, 4)), jnp.asarray([[1, 3, 0], [2, 0, 0]])
    likelihood = Categorical(4, ignore=0)
    whole = log_prob(Categorical(4), logits[0, :2][None], x[0, :2][None])
    np.testing.assert_allclose(log_prob(likelihood, logits, x)[0], whole[0], rtol=1e-6)
    gradient = jax.grad(lambda o: log_prob(likelihood, o, x).sum())(logits)
    np.testing.assert_array_equal(np.abs(gradient).sum(-1) == 0, x == 0)


def test_values_between_levels_count_as_the_nearer() -> None:
    out = jnp.asarray([[0.4, -1.0]] * 2)
    near, exact = log_prob(DiscretizedLogistic(5), out, jnp.asarray([[0.3], [0.25]]))
    assert near == exact


@pytest.mark.parametrize("likelihood", ALL, ids=NAMES)
def test_is_a_value(likelihood) -> None:
    fields = json.loads(json.dumps(dataclasses.asdict(likelihood)))
    again = type(likelihood)(**fields)
    assert again == likelihood and hash(again) == hash(likelihood)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Normal(0), "Normal: scale must be a number above 0, not 0."),
        (lambda: Normal(float("nan")), "Normal: scale must be a number above 0, not nan."),
        (lambda: Laplace("wide"), "Laplace: scale must be a number above 0, not 'wide'."),
        (lambda: Laplace(None), "Laplace: scale must be a number above 0, not None."),
        (lambda: Categorical(0), "Categorical: classes must be a whole number of at least 1, not 0."),
        (lambda: DiscretizedLogistic(1), "DiscretizedLogistic: levels must be a whole number of at least 2, not 1."),
        (
            lambda: DiscretizedLogistic(2.5),
            "DiscretizedLogistic: levels must be a whole number of at least 2, not 2.5.",
        ),
    ],
)
def test_errors(make, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence
