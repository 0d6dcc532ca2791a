"""Paths, grids and weights: what must hold whatever the numbers."""

import itertools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.diffusion import VDM, grids, schedules, weights
from mmgen_jax.diffusion.edm import EDM
from mmgen_jax.diffusion.paths import DDPM, Denoised, Prediction, RectifiedFlow, along, convert, denoised, noised

LEARNED = VDM(units=5)
PATHS = {
    "flow": RectifiedFlow(),
    "linear": DDPM(),
    "scaled_linear": DDPM(schedule="scaled_linear", steps=500, ends=(0.0017, 0.024)),
    "cosine": DDPM(schedule="cosine"),
    "zero terminal": DDPM(schedule="scaled_linear", zero_terminal_snr=True, prediction="v"),
    "edm": EDM(),
    "learned": LEARNED.at(LEARNED.init()),
}
INSIDE = np.array([0.1, 0.37, 0.5, 0.93], np.float32)[:, None]
paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def example(shape=(4, 3)):
    return jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), shape)


@paths
def test_conversions_lead_back_to_the_same_prediction(path):
    x, noise = example()
    c = path.coefficients(INSIDE)
    x_t, both = noised(x, noise, c), Denoised(x, noise)
    for source, target in itertools.product(get_args(Prediction), repeat=2):
        value = both.to(source, c)
        there = convert(value, source, target, x_t, c)
        np.testing.assert_allclose(there, both.to(target, c), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(convert(there, target, source, x_t, c), value, rtol=2e-3, atol=2e-3)
        estimate = denoised(there, target, x_t, c)
        np.testing.assert_allclose(estimate.data, x, rtol=2e-3, atol=2e-3)


@paths
def test_derivatives_are_those_of_the_coefficients(path):
    with jax.enable_x64(True):
        t, h = jnp.asarray(INSIDE, float) + 1e-3 / 7, 1e-6
        before, c, after = (path.coefficients(time) for time in (t - h, t, t + h))
        np.testing.assert_allclose((after.alpha - before.alpha) / (2 * h), c.d_alpha, atol=2e-4)
        np.testing.assert_allclose((after.sigma - before.sigma) / (2 * h), c.d_sigma, atol=2e-4)


@pytest.mark.parametrize("name", [name for name in PATHS if name != "edm"])
def test_noise_grows_from_data_to_noise(name):
    c = PATHS[name].coefficients(jnp.linspace(0, 1, 3001))
    assert (jnp.diff(c.sigma) >= 0).all() and (jnp.diff(c.alpha) <= 0).all()
    assert c.sigma[0] < 0.01 and c.alpha[-1] < 0.09 and jnp.isfinite(c.d_sigma).all()
    if name != "flow":
        np.testing.assert_allclose(c.alpha**2 + c.sigma**2, 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["flow", "zero terminal"])
def test_both_ends_are_exact(name):
    c = PATHS[name].coefficients(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal([c.alpha, c.sigma], [[1, 0], [0, 1]])


@pytest.mark.parametrize("source", ["velocity", "noise", "data", "v"])
def test_estimates_are_finite_at_both_ends_and_so_are_their_gradients(source):
    x, noise = example((2, 3))
    c = RectifiedFlow().coefficients(jnp.array([[0.0], [1.0]]))
    x_t, value = noised(x, noise, c), Denoised(x, noise).to(source, c)

    def total(value):
        both = denoised(value, source, x_t, c)
        return (both.data**2 + both.noise**2).sum()

    both = denoised(value, source, x_t, c)
    if source in ("velocity", "v"):  # which say both
        np.testing.assert_allclose(both.data, x, atol=1e-6)
        np.testing.assert_allclose(both.noise, noise, atol=1e-6)
    assert np.isfinite(jax.grad(total)(value)).all() and np.isfinite(total(value))


def test_coefficients_follow_the_dtype_of_the_time():
    assert PATHS["linear"].coefficients(jnp.zeros(3, jnp.float32)).alpha.dtype == jnp.float32
    with jax.enable_x64(True):
        assert PATHS["linear"].coefficients(jnp.zeros(3)).d_alpha.dtype == jnp.float64


def test_pytrees_have_coefficients_of_their_own():
    times = {"image": jnp.float32(0.3), "text": jnp.ones((2, 1))}
    x = {"image": jnp.ones((2, 3)), "text": jnp.ones((2, 4))}
    velocity = Denoised(x, jax.tree.map(lambda a: 3 * a, x)).velocity(along(RectifiedFlow(), times))
    jax.tree.map(lambda u: np.testing.assert_allclose(u, 2), velocity)


def test_the_learned_path_rises_between_its_ends_and_has_gradients():
    model = VDM(low=-8.0, high=4.0, units=7)
    path, t = model.at(model.init()), jnp.linspace(0, 1, 101)
    np.testing.assert_allclose(path.gamma(jnp.array([0.0, 1.0])), [-8, 4], rtol=1e-5)
    noise = jax.random.split(jax.random.key(0), 5)
    params = {k: v + jax.random.normal(key, v.shape) for (k, v), key in zip(model.init().items(), noise, strict=True)}
    assert (jnp.diff(model.at(params).gamma(t)) > 0).all()
    grads = jax.jit(jax.grad(lambda p: model.at(p).coefficients(t[1:, None]).d_sigma.sum()))(params)
    assert all(np.isfinite(g).all() for g in grads.values())
    assert {k for k, g in grads.items() if (g != 0).any()} == set("abc")  # the ends are held still
    c = path.coefficients(t)
    slope = jax.jit(jax.vmap(jax.grad(path.gamma)))(t)
    np.testing.assert_allclose(weights.ELBO()(c, "noise"), slope / 2, rtol=1e-3)


def test_preconditioning_gives_network_and_target_unit_variance():
    path = EDM(data_std=0.7)
    t = jnp.array([0.01, 0.5, 10.0])
    p = path.preconditioning(t)
    np.testing.assert_allclose(p.c_in**2 * (0.7**2 + t**2), 1, rtol=1e-5)
    variance = ((1 - p.c_skip) * 0.7) ** 2 + (p.c_skip * t) ** 2  # of x - c_skip (x + t eps)
    np.testing.assert_allclose(variance, p.c_out**2, rtol=1e-4)
    np.testing.assert_allclose(path.weight(t) * p.c_out**2, 1, rtol=1e-5)
    logs = jnp.log(path.level(weights.LogitNormal().sample(jax.random.key(0), (20_000,), jnp.float32)))
    np.testing.assert_allclose([logs.mean(), logs.std()], [-1.2, 1.2], atol=0.03)


@pytest.mark.parametrize("weight", [weights.MinSNR(3.0), weights.Sigmoid(0.5), weights.ELBO()])
@paths
def test_a_weighted_loss_is_the_same_whatever_is_predicted(weight, path):
    (x, noise), (y, _) = example(), example((4, 3))
    c = path.coefficients(INSIDE)
    x_t = noised(x, noise, c)
    guess = denoised(0.9 * y + 0.3, "data", x_t, c)
    losses = [
        weight(c, kind) * (guess.to(kind, c) - Denoised(x, noise).to(kind, c)) ** 2 for kind in get_args(Prediction)
    ]
    for loss in losses[1:]:
        np.testing.assert_allclose(loss, losses[0], rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", ["noise", "data", "v", "velocity"])
def test_weights_are_finite_at_both_ends(prediction):
    c = RectifiedFlow().coefficients(jnp.array([0.0, 1.0]))
    for weight in (weights.MinSNR(), weights.Sigmoid(), weights.Uniform(), weights.Cosmap()):
        assert np.isfinite(weight(c, prediction)).all()


TIMES = [
    weights.UniformTimes(), weights.LogitNormal(0.4, 0.8), weights.Mode(1.29), weights.Mode(-0.6),
    weights.Shifted(weights.LogitNormal(), 3.0), weights.Shifted(weights.Mode(0.5), 0.5),
]  # fmt: skip


@pytest.mark.parametrize("times", TIMES, ids=repr)
def test_times_follow_their_density(times):
    middle = (jnp.arange(20_000) + 0.5) / 20_000
    density = times.pdf(middle)
    np.testing.assert_allclose(density.mean(), 1, rtol=1e-3)
    drawn = times.sample(jax.random.key(0), (50_000,), jnp.float32)
    assert drawn.min() >= 0 and drawn.max() <= 1
    counts = jnp.histogram(drawn, bins=10, range=(0.0, 1.0))[0] / len(drawn)
    np.testing.assert_allclose(counts, density.reshape(10, -1).mean(1) / 10, atol=0.01)


@pytest.mark.parametrize("name", ["flow", "linear", "zero terminal"])
def test_times_of_noise_levels_are_the_inverse_of_the_path(name):
    path, t = PATHS[name], jnp.array([0.0, 0.0421, 0.5, 0.98])
    c = path.coefficients(t)
    np.testing.assert_allclose(grids.times_at(path, c.sigma / c.alpha), t, rtol=1e-4)
    assert grids.times_at(path, jnp.inf) > 1 - 1e-6


def test_grids_start_where_asked_and_end_at_data():
    path = RectifiedFlow()
    grid = grids.log_snr(path, 8)
    steps = jnp.diff(path.coefficients(grid[:-1]).log_snr)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    np.testing.assert_allclose(grid[jnp.array([0, 7, 8])], [0.999, 0.001, 0], rtol=1e-4)
    np.testing.assert_allclose(grids.uniform(4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(grids.shift(grids.shift(grid, 3.0), 1 / 3), grid, rtol=1e-4)
    np.testing.assert_allclose(grids.stretch(jnp.array([1.0, 0.6, 0.2]), 0.1), [1, 0.55, 0.1], rtol=1e-6)
    expected = [80, 57.5859847, 40.7855738, 28.3745846, 19.3524530, 12.9100824, 8.40093531, 5.31519452, 3.25682152]
    np.testing.assert_allclose(grids.karras(18)[:9], expected, rtol=1e-5)  # Karras et al., N = 18


def test_tables_have_the_published_values():
    bars = [DDPM(schedule=name).alphas_cumprod[[0, 499, 999]] for name in ("linear", "scaled_linear")]
    np.testing.assert_allclose(bars[0], [0.9999, 0.0785872429, 4.03582977e-5], rtol=1e-8)
    np.testing.assert_allclose(bars[1], [0.99915, 0.27766965, 0.0046601], rtol=1e-5)
    zero = schedules.alphas_cumprod(schedules.zero_terminal_snr(schedules.betas("linear")))
    assert zero[-1] == 0 and zero[0] == DDPM().alphas_cumprod[0]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RectifiedFlow(prediction="x"), "RectifiedFlow: prediction is 'x', but must be one of velocity"),
        (lambda: DDPM(schedule="square"), "DDPM: schedule is 'square', but must be one of linear, scaled"),
        (lambda: DDPM(steps=1), "DDPM: steps is 1, but must be at least 2"),
        (lambda: DDPM(zero_terminal_snr=True), "DDPM: prediction is 'noise', but with zero_terminal_snr"),
        (lambda: grids.ShiftedGrid(0.0), "ShiftedGrid: factor is 0.0, but must be positive"),
        (lambda: grids.LogSNRGrid(start=1.0), "LogSNRGrid: start, stop are 1.0, 0.001, but must fall within 1 and 0"),
        (lambda: grids.KarrasGrid(low=90.0), "KarrasGrid: low, high are 90.0, 80.0, but must rise from above 0"),
        (lambda: grids.KarrasGrid(rho=0.0), "KarrasGrid: rho is 0.0, but must be positive"),
        (lambda: EDM(data_std=0.0), "EDM: data_std is 0.0, but must be positive"),
        (lambda: VDM(low=2.0, high=1.0), "VDM: high is 1.0, but must be above low = 2.0"),
        (lambda: VDM(units=0), "VDM: units is 0, but must be at least 1"),
        (lambda: schedules.betas("x"), "betas: schedule is 'x', but must be one of"),
        (lambda: schedules.timesteps("x", 3), "timesteps: spacing is 'x', but must be one of leading"),
        (lambda: schedules.timesteps("leading", 0), "timesteps: n is 0, but must be between 1 and steps = 1000"),
        (lambda: weights.MinSNR(0.0), "MinSNR: gamma is 0.0, but must be positive"),
        (lambda: weights.LogitNormal(std=0.0), "LogitNormal: std is 0.0, but must be positive"),
        (lambda: weights.Mode(2.0), "Mode: scale is 2.0, but must be between -1 and 1.75"),
        (lambda: weights.Shifted(weights.LogitNormal(), 0.0), "Shifted: factor is 0.0, but must be positive"),
        (lambda: convert(1.0, "x", "data", 1.0, None), "denoised: source is 'x', but must be one of"),
        (lambda: Denoised(1.0, 1.0).to("x", None), "Denoised.to: target is 'x', but must be one of"),
        (lambda: weights.MinSNR()(None, "x"), "weight: prediction is 'x', but must be one of"),
    ],
)  # fmt: skip
def test_bad_fields_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()
