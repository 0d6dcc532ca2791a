"""Priors: densities are densities, draws are draws from them, and they learn what one Gaussian cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.vae.priors import em
from mmgen_jax.vae.priors.flow import FlowPrior
from mmgen_jax.vae.priors.flow_matching import FlowMatchingPrior, heun, value_and_divergence
from mmgen_jax.vae.priors.gaussian_mixture import GaussianMixturePrior
from mmgen_jax.vae.priors.scale import from_scale, log_volume, standardised, to_scale
from mmgen_jax.vae.priors.training import Training

BRIEF = Training(steps=3, batch_size=8, rate=1e-3)
PRIORS = {
    "mixture": GaussianMixturePrior(components=8),
    "flow": FlowPrior(hidden=32, layers=2, blocks=4, training=Training(steps=400, batch_size=128, rate=5e-3)),
    "flow_matching": FlowMatchingPrior(
        hidden=(64, 64, 64), steps=16, training=Training(steps=400, batch_size=256, rate=1e-2)
    ),
}
BRIEF_PRIORS = {
    "mixture": GaussianMixturePrior(components=2, steps=3),
    "flow": FlowPrior(hidden=8, layers=1, blocks=2, training=BRIEF),
    "flow_matching": FlowMatchingPrior(hidden=(8,), steps=2, training=BRIEF),
}
every_brief_prior = pytest.mark.parametrize("prior", BRIEF_PRIORS.values(), ids=BRIEF_PRIORS)
CENTRE = np.array([5.0, -2.0])


def ring(n: int, seed: int) -> np.ndarray:
    """A noisy circle of radius 3 around CENTRE, [n, 2]: no Gaussian, and away from the origin."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    circle = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (CENTRE + circle + rng.normal(0, 0.3, (n, 2))).astype(np.float32)


def normal(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, zero for equal distributions."""

    def mean(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=-1).mean()

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


@pytest.fixture(scope="module", params=PRIORS)
def fitted(request):
    """A prior that has learned the ring."""
    prior = PRIORS[request.param]
    return prior, prior.fit(jax.random.key(0), ring(2_000, 0))


@pytest.fixture(scope="module")
def gaussian():
    """The single Gaussian that has the ring's moments."""
    prior = GaussianMixturePrior(components=1)
    return prior, prior.fit(jax.random.key(0), ring(2_000, 0))


def test_held_out_codes_are_more_probable_than_under_one_gaussian(fitted, gaussian):
    """A circle in the plane has the entropy 3.13, and the Gaussian of its moments 4.36."""
    held_out = ring(1_000, 1)
    mean, baseline = (prior.log_prob(params, held_out).mean() for prior, params in (fitted, gaussian))
    assert mean > baseline + 0.4


def test_draws_are_closer_to_the_codes_than_those_of_one_gaussian(fitted, gaussian):
    held_out = ring(1_000, 1)
    near, far = (
        energy_distance(np.asarray(prior.sample(params, jax.random.key(1), 1_000)), held_out)
        for prior, params in (fitted, gaussian)
    )
    assert near < far / 2


def test_draws_have_the_moments_of_the_codes(fitted):
    prior, params = fitted
    draws, codes = np.asarray(prior.sample(params, jax.random.key(2), 4_000)), ring(2_000, 0)
    np.testing.assert_allclose(draws.mean(0), codes.mean(0), atol=0.35)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(codes.T), atol=0.8)


def test_the_density_integrates_to_one(fitted):
    prior, params = fitted
    side = np.linspace(-9, 9, 100, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1) + CENTRE.astype(np.float32)
    mass = np.exp(prior.log_prob(params, grid)).sum() * (side[1] - side[0]) ** 2
    assert abs(mass - 1) < 0.02


def test_draws_are_as_probable_as_the_density_says(fitted):
    """The mean of any function over draws is its integral under the density: here, of being inside the circle."""
    prior, params = fitted
    side = np.linspace(-9, 9, 100, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    inside = np.linalg.norm(grid, axis=-1) < 3
    density = np.exp(prior.log_prob(params, grid + CENTRE.astype(np.float32)))
    draws = np.asarray(prior.sample(params, jax.random.key(3), 4_000)) - CENTRE
    expected = (density * inside).sum() / density.sum()
    assert abs((np.linalg.norm(draws, axis=1) < 3).mean() - expected) < 0.04


@every_brief_prior
def test_shapes_and_types_and_determinism(prior):
    codes = normal(20, 3).astype(np.float16)
    params = prior.fit(jax.random.key(0), codes)
    assert all(isinstance(x, jax.Array) and x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, prior.fit(jax.random.key(0), codes))
    draws = prior.sample(params, jax.random.key(1), 5)
    assert draws.shape == (5, 3) and draws.dtype == jnp.float32 and jnp.isfinite(draws).all()
    np.testing.assert_array_equal(draws, prior.sample(params, jax.random.key(1), 5))
    assert (draws != prior.sample(params, jax.random.key(2), 5)).any()
    assert prior.sample(params, jax.random.key(1), 1).shape == (1, 3)
    each = prior.log_prob(params, draws)
    assert each.shape == (5,) and each.dtype == jnp.float32
    np.testing.assert_allclose(prior.log_prob(params, draws[2]), each[2], rtol=1e-5)
    np.testing.assert_allclose(prior.log_prob(params, draws[None, 4:]), each[None, 4:], rtol=1e-5)


@every_brief_prior
def test_another_key_fits_other_parameters(prior):
    codes = normal(20, 2)
    one, two = (jax.tree.leaves(prior.fit(jax.random.key(seed), codes)) for seed in (0, 1))
    assert any((a != b).any() for a, b in zip(one, two, strict=True))


@every_brief_prior
def test_one_dimension(prior):
    params = prior.fit(jax.random.key(0), 4 + 2 * normal(50, 1))
    side = np.linspace(-30, 40, 2_000, dtype=np.float32)
    mass = np.exp(prior.log_prob(params, side[:, None])).sum() * (side[1] - side[0])
    assert abs(mass - 1) < 0.02
    assert prior.sample(params, jax.random.key(0), 3).shape == (3, 1)


@every_brief_prior
def test_a_dimension_that_never_changes_stays_finite(prior):
    codes = np.concatenate([normal(20, 1), np.full((20, 1), 7, np.float32)], axis=1)
    params = prior.fit(jax.random.key(0), codes)
    draws = prior.sample(params, jax.random.key(1), 6)
    np.testing.assert_allclose(draws[:, 1], 7, atol=1e-3)
    assert jnp.isfinite(prior.log_prob(params, draws)).all()


@every_brief_prior
@pytest.mark.parametrize("shape", [(5,), (0, 3), (2, 3, 4), (3, 0)])
def test_codes_of_another_shape_are_refused(prior, shape):
    with pytest.raises(ValueError, match=r"codes have shape \(.*\), but must be \[N, D\]"):
        prior.fit(jax.random.key(0), np.zeros(shape, np.float32))


def test_a_scale_has_an_inverse_and_the_volume_it_says():
    codes = normal(100, 3) * [1, 10, 0.1] + [0, 5, -3]
    scale, x = standardised(codes)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(from_scale(scale, to_scale(scale, x)), x, rtol=1e-4, atol=1e-4)
    jacobian = jax.jacfwd(lambda x: from_scale(scale, x))(x[0])
    np.testing.assert_allclose(log_volume(scale), np.linalg.slogdet(jacobian)[1], rtol=1e-4)


def test_training_minimises_and_refuses_nonsense():
    codes = jnp.asarray(normal(200, 2)) + 3

    def loss(params, _, rows):
        return jnp.square(rows - params["mean"][None]).sum(1)

    params = Training(steps=200, batch_size=64, rate=0.1).minimise(
        loss, {"mean": jnp.zeros(2)}, jax.random.key(0), codes
    )
    np.testing.assert_allclose(params["mean"], codes.mean(0), atol=0.1)
    with pytest.raises(ValueError, match="batch_size is 0, but must be positive"):
        Training(batch_size=0)


def covariance(params) -> np.ndarray:
    """[K, D, D] of a fitted mixture, in the units of the codes."""
    mixture, std = params["mixture"], params["scale"]["std"]
    axes = np.asarray(mixture["axes"] * std[None, :, None])
    return np.einsum("kde,ke,kfe->kdf", axes, np.exp(mixture["log_var"]), axes)


def test_one_component_is_the_closed_form():
    codes = normal(300, 3) @ normal(3, 3, seed=1) + [1, 2, 3]
    params = GaussianMixturePrior(components=1).fit(jax.random.key(0), codes)
    mean, cov = codes.mean(0), np.cov(codes.T, bias=True)
    np.testing.assert_allclose(from_scale(params["scale"], params["mixture"]["mean"])[0], mean, atol=1e-4)
    np.testing.assert_allclose(covariance(params)[0], cov, rtol=1e-4, atol=1e-4)
    away = codes - mean
    square = np.einsum("nd,de,ne->n", away, np.linalg.inv(cov), away)
    expected = -0.5 * (square + np.linalg.slogdet(2 * np.pi * cov)[1])
    actual = GaussianMixturePrior(components=1).log_prob(params, jnp.asarray(codes, jnp.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)


def test_a_known_mixture_is_recovered():
    weights, means = np.array([0.5, 0.3, 0.2]), np.array([[0.0, 0.0], [6.0, 1.0], [-3.0, 5.0]])
    covariances = np.array([[[1.0, 0.6], [0.6, 1.0]], [[0.5, 0.0], [0.0, 2.0]], [[1.5, -0.7], [-0.7, 0.6]]])
    rng = np.random.default_rng(0)
    which = rng.choice(3, 6_000, p=weights)
    codes = means[which] + np.einsum("nde,ne->nd", np.linalg.cholesky(covariances)[which], rng.normal(size=(6_000, 2)))
    prior = GaussianMixturePrior(components=3, tol=1e-6)
    params = prior.fit(jax.random.key(0), codes)
    found = np.asarray(from_scale(params["scale"], params["mixture"]["mean"]))
    order = [int(np.argmin(np.linalg.norm(found - mean, axis=1))) for mean in means]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found[order], means, atol=0.12)
    np.testing.assert_allclose(np.exp(params["mixture"]["log_weight"])[order], weights, atol=0.02)
    np.testing.assert_allclose(covariance(params)[order], covariances, atol=0.15)


@pytest.mark.parametrize("floor", [1e-4, 0.3])
def test_no_step_lowers_the_likelihood_though_a_floor_holds(floor):
    _, x = standardised(ring(500, 0))
    step, mixture = jax.jit(em.step), em.start(jax.random.key(0), x, 6, floor)
    trace = []
    for _ in range(40):
        mixture, mean = step(mixture, x, floor)
        trace.append(float(mean))
    assert np.diff(trace).min() > -1e-5 and trace[-1] > trace[0] + 0.01
    assert mixture["log_var"].min() >= np.float32(np.log(floor)) - 1e-6
    held = mixture["log_var"] < np.log(floor) + 1e-6
    assert held.any() == (floor == 0.3)
    np.testing.assert_allclose(np.exp(mixture["log_weight"]).sum(), 1, rtol=1e-5)


def test_more_starts_find_the_clusters_that_one_misses():
    """Eight small clusters far apart, where one start in four leaves a cluster without a mean of its own."""
    rng = np.random.default_rng(0)
    codes = (10 * rng.normal(size=(8, 2))[rng.integers(0, 8, 400)] + rng.normal(size=(400, 2))).astype(np.float32)

    def likelihood(starts, key):
        prior = GaussianMixturePrior(components=8, starts=starts)
        return float(prior.log_prob(prior.fit(key, codes), codes).mean())

    keys = [jax.random.key(seed) for seed in range(6)]
    first = [likelihood(1, key) for key in keys]
    best = [likelihood(6, key) for key in keys]
    assert min(best) > min(first) + 0.05


def test_fitting_ends_by_the_gain_or_by_the_steps():
    codes = ring(500, 0)

    def likelihood(**limits):
        prior = GaussianMixturePrior(components=6, starts=1, **limits)
        return float(prior.log_prob(prior.fit(jax.random.key(0), codes), codes).mean())

    assert max(likelihood(steps=1), likelihood(tol=0.05)) < likelihood(tol=1e-6)


def test_more_components_than_kinds_of_codes_stay_finite():
    """Every component but three has no code of its own, and those three have no extent."""
    codes = np.repeat(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]], np.float32), 5, axis=0)
    prior = GaussianMixturePrior(components=6)
    params = prior.fit(jax.random.key(0), codes)
    assert jnp.isfinite(prior.log_prob(params, codes)).all()
    draws = np.asarray(prior.sample(params, jax.random.key(1), 50))
    nearest = np.linalg.norm(draws[:, None] - codes[None, ::5], axis=-1).min(1)
    assert nearest.max() < 0.1


def test_a_mixture_refuses_what_it_cannot_fit():
    with pytest.raises(ValueError, match="4 codes are too few for 5 components"):
        GaussianMixturePrior(components=5).fit(jax.random.key(0), normal(4, 2))
    for field, value in (("components", 0), ("starts", 0), ("steps", 0), ("tol", -1.0), ("floor", 0.0)):
        with pytest.raises(ValueError, match=f"{field} is {value}, but must be"):
            GaussianMixturePrior(**{field: value})


def test_heun_solves_what_has_a_solution_and_is_of_second_order():
    """dx/dt = t x has the solution x_0 exp(t^2 / 2)."""

    def error(steps, start=0.0, end=1.0):
        found = heun(lambda x, t: t * x, jnp.ones(()), start, end, steps)
        return abs(float(found) - np.exp((end**2 - start**2) / 2))

    assert error(32) < 1e-3 and error(32, 1.0, 0.0) < 1e-3
    assert 3.2 < error(8) / error(16) < 4.8


def test_the_divergence_is_the_trace_of_the_jacobian():
    matrix = jnp.asarray(normal(4, 4))
    value, divergence = value_and_divergence(lambda x: jnp.tanh(matrix @ x), jnp.ones(4))
    np.testing.assert_allclose(value, jnp.tanh(matrix @ jnp.ones(4)), rtol=1e-6)
    np.testing.assert_allclose(divergence, np.trace(jax.jacfwd(lambda x: jnp.tanh(matrix @ x))(jnp.ones(4))), rtol=1e-5)


def test_flow_matching_needs_a_step():
    with pytest.raises(ValueError, match="steps is 0, but must be at least 1"):
        FlowMatchingPrior(steps=0)
