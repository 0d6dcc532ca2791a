"""Samplers and masked decoding on problems whose answer is known."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.diffusion import grids, masked
from mmgen_jax.diffusion.dpm_solver import DPMSolver
from mmgen_jax.diffusion.edm import EDM
from mmgen_jax.diffusion.paths import DDPM, Denoised, RectifiedFlow, along, denoised
from mmgen_jax.diffusion.samplers import DDIM, SDE, Ancestral, Churn, Euler, Heun, Renoise, sample
from mmgen_jax.nn import maskgit

FLOW = RectifiedFlow()
ANY_PATH = [
    Euler(), Heun(), DDIM(), DDIM(eta=0.6), Ancestral(), Ancestral(variance="large"), Renoise(), SDE(),
    *(DPMSolver(order=order) for order in (1, 2, 3)), DPMSolver(kind="heun"), DPMSolver(sde=True),
    DPMSolver(sde=True, kind="heun"),
]  # fmt: skip
EXACT = [s for s in ANY_PATH if s not in (Ancestral(variance="large"), Renoise())]  # in the limit of many steps
NOISELESS = [Euler(), DDIM(), Heun(), DPMSolver(), DPMSolver(kind="heun"), DPMSolver(order=3)]


def gaussian(path, mean=0.0, std=0.5):
    """What is exact where data are N(mean, std^2): pytrees and all."""

    def each(x, c):
        residual = (x - c.alpha * mean) / (c.alpha**2 * std**2 + c.sigma**2)
        return Denoised(mean + c.alpha * std**2 * residual, c.sigma * residual)

    def predict(x, t):
        both = jax.tree.map(each, x, along(path, t))
        halves = ({k: getattr(v, half) for k, v in both.items()} for half in ("data", "noise"))
        return (Denoised(*halves) if isinstance(x, dict) else both), t

    return predict


def run(sampler, path, x, grid, predict=None, seed=0):
    predict = gaussian(path) if predict is None else predict
    return jax.jit(functools.partial(sample, sampler, predict, path))(x, grid, jax.random.key(seed))


def exact_flow(path, x, start, stop, std=0.5):
    """Where the ODE leads when data are N(0, std^2): x keeps its place in units of the marginal's deviation."""
    a, b = path.coefficients(jnp.asarray(start)), path.coefficients(jnp.asarray(stop))
    return x * jnp.sqrt((b.alpha**2 * std**2 + b.sigma**2) / (a.alpha**2 * std**2 + a.sigma**2))


@pytest.mark.parametrize("sampler", NOISELESS, ids=repr)
def test_orders_of_convergence(sampler):
    """attention.md, section 6: t from 0.999 to 0.001, uniform grid, data of deviation 0.5."""
    with jax.enable_x64(True):
        x, order = jnp.ones(1), 1 if isinstance(sampler, Euler | DDIM) else 2
        expected = exact_flow(FLOW, x, 0.999, 0.001)
        runs = {n: run(sampler, FLOW, x, grids.uniform(n, 0.999, 0.001)) for n in (10, 20, 40, 80, 160, 320)}
        errors = {n: float(jnp.abs(x - expected).max()) for n, x in runs.items()}
        published = {"Euler": [6.90e-2, 3.56e-2, 1.81e-2, 9.15e-3], "Heun": [1.72e-3, 5.09e-4, 1.37e-4, 3.54e-5]}
        published |= {"DDIM": published["Euler"], "DPMSolver": [0.152, 4.25e-2, 9.69e-3, 2.16e-3]}
        if sampler in (Euler(), DDIM(), Heun(), DPMSolver()):
            np.testing.assert_allclose([*errors.values()][:4], published[type(sampler).__name__], rtol=6e-3)
        assert errors[160] / errors[320] > 2**order * 0.85, errors
        if sampler == DPMSolver(order=3):
            assert errors[160] / errors[320] > 6, errors


@pytest.mark.parametrize("sampler", [Euler(), DDIM(), DPMSolver(order=1)], ids=repr)
def test_first_order_samplers_agree_on_the_straight_path(sampler):
    x, grid = jax.random.normal(jax.random.key(0), (4, 3)), grids.uniform(7)
    np.testing.assert_allclose(run(sampler, FLOW, x, grid), run(Euler(), FLOW, x, grid), atol=2e-6)


def test_ancestral_is_ddim_with_all_its_noise():
    path, x = DDPM(schedule="cosine"), jax.random.normal(jax.random.key(0), (4, 3))
    ours = (run(s, path, x, grids.uniform(9)) for s in (Ancestral(), DDIM(eta=1.0)))
    np.testing.assert_allclose(*ours, atol=2e-4)


@pytest.mark.parametrize("path", [FLOW, DDPM(schedule="cosine")], ids=["flow", "cosine"])
@pytest.mark.parametrize("sampler", EXACT, ids=repr)
def test_samples_have_the_moments_of_the_data(sampler, path):
    x = jax.random.normal(jax.random.key(1), (20_000,))
    out = run(sampler, path, x, grids.uniform(60), gaussian(path, 0.7, 0.5))
    np.testing.assert_allclose([out.mean(), out.std()], [0.7, 0.5], atol=0.04)


@pytest.mark.parametrize("sampler", [Churn(), Churn(solver=Euler(), churn=0.1), Heun(), DPMSolver()], ids=repr)
def test_samples_in_noise_levels_have_the_moments_of_the_data(sampler):
    x = 80 * jax.random.normal(jax.random.key(1), (20_000,))
    out = run(sampler, EDM(), x, grids.karras(160), gaussian(EDM(), 0.7, 0.5))
    np.testing.assert_allclose([out.mean(), out.std()], [0.7, 0.5], atol=0.04)


@pytest.mark.parametrize("sampler", ANY_PATH, ids=repr)
def test_each_modality_has_its_own_times_and_what_stands_still_stays(sampler):
    n, key = 5, jax.random.key(0)
    names = ("moves", "later", "given", "absent", "halfway")
    x = {name: jax.random.normal(jax.random.fold_in(key, i), (4, 3)) for i, name in enumerate(names)}
    grid = {"moves": grids.uniform(n), "later": grids.uniform(n) ** 2, "given": jnp.zeros(n + 1)}
    grid |= {"absent": jnp.ones(n + 1), "halfway": jnp.full(n + 1, 0.5)}
    out = run(sampler, FLOW, x, grid)
    still = ("given",) if isinstance(sampler, Renoise) else ("given", "absent", "halfway")
    for name in still:
        np.testing.assert_allclose(out[name], x[name], atol=1e-6, err_msg=name)
    for name in ("moves", "later"):
        alone = run(sampler, FLOW, {name: x[name]}, {name: grid[name]})
        np.testing.assert_allclose(out[name], alone[name], atol=1e-5, err_msg=name)
        assert np.isfinite(out[name]).all() and not np.allclose(out[name], x[name])


@pytest.mark.parametrize("sampler", ANY_PATH, ids=repr)
def test_times_of_single_examples_broadcast(sampler):
    x, grid = jax.random.normal(jax.random.key(0), (2, 3)), grids.uniform(4)
    both = run(sampler, FLOW, x, jnp.stack([grid, grid], axis=1)[..., None])
    np.testing.assert_allclose(both, run(sampler, FLOW, x, grid), atol=1e-5)


@pytest.mark.parametrize("sampler", ANY_PATH, ids=repr)
@pytest.mark.parametrize("source", ["velocity", "data"])
def test_gradients_are_finite_from_noise_to_data(sampler, source):
    def loss(weight, x):
        def predict(x, t):
            return denoised(weight * jnp.tanh(x), source, x, FLOW.coefficients(t)), None

        return (sample(sampler, predict, FLOW, x, grids.uniform(4), jax.random.key(0)) ** 2).sum()

    x = jax.random.normal(jax.random.key(0), (3,))
    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(0.5, x)
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("sampler", [Heun(), SDE(), DPMSolver(order=3)], ids=repr)
def test_another_grid_of_the_same_length_needs_no_new_program(sampler):
    traces = []

    def predict(x, t):
        traces.append(1)
        return gaussian(FLOW)(x, t)

    compiled = jax.jit(functools.partial(sample, sampler, predict, FLOW))
    x, key = jnp.ones(3), jax.random.key(0)
    first = compiled(x, grids.uniform(6), key)
    count = len(traces)
    second = compiled(x, grids.shift(grids.uniform(6), 3.0), key)
    assert len(traces) == count <= 4 and not np.allclose(first, second)


def test_a_step_says_what_its_first_evaluation_said():
    calls = Heun().step(gaussian(FLOW), FLOW, jnp.ones(3), jnp.float32(0.8), jnp.float32(0.4), (), jax.random.key(0))
    assert calls[2] == jnp.float32(0.8)


def test_noise_of_a_modality_does_not_depend_on_the_others():
    x, grid = {"a": jnp.ones(3), "b": jnp.ones(4)}, grids.uniform(3)
    both = run(SDE(), FLOW, x, {"a": grid, "b": grid})
    np.testing.assert_allclose(both["b"], run(SDE(), FLOW, {"b": x["b"]}, {"b": grid})["b"], rtol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DDIM(eta=1.5), "DDIM: eta is 1.5, but must be between 0 and 1"),
        (lambda: Ancestral(variance="x"), "Ancestral: variance is 'x', but must be one of small, large"),
        (lambda: DPMSolver(order=4), "DPMSolver: order is 4, but with sde=False must be between 1 and 3"),
        (lambda: DPMSolver(order=3, sde=True), "DPMSolver: order is 3, but with sde=True must be between 1 and 2"),
        (lambda: DPMSolver(kind="x"), "DPMSolver: kind is 'x', but must be one of midpoint, heun"),
        (lambda: Churn(churn=-1.0), "Churn: churn is -1.0, but must not be negative"),
        (lambda: Churn(solver=DPMSolver()), "Churn: solver is DPMSolver.*, but must be one of Euler"),
        (lambda: Churn(low=2.0, high=1.0), "Churn: low is 2.0, but must not be above high = 1.0"),
        (lambda: run(Churn(), FLOW, jnp.ones(3), grids.uniform(2)), "Churn: path is RectifiedFlow, but must be EDM"),
        (lambda: maskgit.masks_left(4, 2, "x"), "masks_left: schedule is 'x', but must be one of cosine, linear"),
        (lambda: maskgit.masks_left(4, 0), "masks_left: steps is 0, but must be at least 1"),
    ],
)
def test_bad_fields_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Tokens: every sequence of 3 symbols of {0, 1} has a known probability; 2 is the mask.

MASK = 2
SEQUENCES = np.array(list(itertools.product(range(2), repeat=3)))
JOINT = np.array([0.3, 0.02, 0.05, 0.13, 0.01, 0.24, 0.2, 0.05])


def conditionals(tokens):
    """The exact log p(x_l = v | what is not masked), [n, 3, 2]."""
    tokens = jnp.asarray(tokens)[:, None]
    fits = ((tokens == SEQUENCES[None]) | (tokens == MASK)).all(-1)
    weight = jnp.where(fits, jnp.float32(JOINT)[None], 0)
    each = jnp.einsum("nk,klv->nlv", weight, jax.nn.one_hot(SEQUENCES, 2))
    return jnp.log(each / weight.sum(-1)[:, None, None] + 1e-30)


@pytest.mark.parametrize("rate", [masked.linear, masked.cosine])
def test_the_bound_is_the_likelihood_when_the_model_is_exact(rate):
    """The integral over t and the sum over masked sequences, both exact: -log p(x), with no gap."""
    nodes, areas = np.polynomial.legendre.leggauss(24)
    t = jnp.asarray((nodes + 1) / 2, jnp.float32)
    patterns = np.array(list(itertools.product([False, True], repeat=3)))
    hidden = np.asarray(rate(t))[:, None]
    chance = (hidden ** patterns.sum(1)) * (1 - hidden) ** (~patterns).sum(1)  # [times, patterns]
    weight = areas / 2 * np.asarray(masked.elbo_weight(t, rate))
    for x, p in zip(SEQUENCES, JOINT, strict=True):
        log_p = jnp.take_along_axis(conditionals(np.where(patterns, MASK, x)), np.tile(x, (8, 1))[..., None], axis=-1)
        cross_entropy = -(np.asarray(log_p)[..., 0] * patterns).sum(-1)
        np.testing.assert_allclose(weight @ chance @ cross_entropy, -math.log(p), rtol=1e-3)


@pytest.mark.parametrize("rate", [masked.linear, masked.cosine])
def test_unmasking_with_exact_conditionals_draws_from_the_joint(rate):
    tokens, grid = jnp.full((20_000, 3), MASK), grids.uniform(100)  # few tokens are unmasked in one step

    def body(tokens, inputs):
        t, s, key = inputs
        return masked.unmask(key, tokens, conditionals(tokens), t, s, MASK, rate=rate), None

    keys = jax.random.split(jax.random.key(0), 100)
    tokens = jax.jit(lambda x: jax.lax.scan(body, x, (grid[:-1], grid[1:], keys))[0])(tokens)
    counts = np.bincount(np.asarray(tokens) @ [4, 2, 1], minlength=8) / len(tokens)
    np.testing.assert_allclose(counts, JOINT, atol=0.015)


def test_masks_grow_with_time_and_steps_keep_what_is_known():
    tokens = jax.random.randint(jax.random.key(0), (20_000, 3), 0, 2)
    t = jnp.linspace(0, 1, 20_000)
    seen = masked.corrupt(jax.random.key(1), tokens, t, MASK)
    np.testing.assert_allclose((seen == MASK).reshape(4, -1).mean(1), [0.125, 0.375, 0.625, 0.875], atol=0.02)
    assert (seen[0] == tokens[0]).all() and (seen[-1] == MASK).all()
    half = masked.unmask(jax.random.key(2), seen, conditionals(seen), t, t / 2, MASK)
    np.testing.assert_allclose((half == MASK).mean(), 0.25, atol=0.01)
    np.testing.assert_array_equal(half[seen != MASK], seen[seen != MASK])
    done = masked.unmask(jax.random.key(2), half, conditionals(half), t, 0 * t, MASK)
    assert (done != MASK).all()
    same = masked.unmask(jax.random.key(2), half, conditionals(half), t, t, MASK)
    np.testing.assert_array_equal(same, half)


def test_temperature_zero_takes_the_most_probable():
    logits = jax.random.normal(jax.random.key(0), (5, 4, 7))
    tokens = jnp.full((5, 4), 7)
    out = masked.unmask(jax.random.key(1), tokens, logits, jnp.ones(()), jnp.zeros(()), 7, temperature=0.0)
    np.testing.assert_array_equal(out, logits.argmax(-1))


def test_maskgit_fills_the_masks_and_nothing_else():
    tokens = jax.random.randint(jax.random.key(0), (6, 16), 0, 5)
    start = jnp.where(jax.random.uniform(jax.random.key(1), tokens.shape) < 0.7, 5, tokens).at[0].set(tokens[0])
    out = maskgit.decode(jax.random.key(2), lambda x: jax.nn.one_hot(x, 5), start, 6, 5)
    assert ((out >= 0) & (out < 5)).all() and out.dtype == start.dtype
    np.testing.assert_array_equal(out[start != 5], start[start != 5])


def test_maskgit_masks_left():
    assert list(maskgit.masks_left(256, 8)) == [251, 236, 212, 181, 142, 97, 49, 0]
    assert list(maskgit.masks_left(256, 12)) == [253, 247, 236, 221, 203, 181, 155, 128, 97, 66, 33, 0]
    assert list(maskgit.masks_left(20, 10, "linear")) == [18, 16, 14, 12, 10, 8, 6, 4, 2, 0]
