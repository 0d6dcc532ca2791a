"""Samples of a flow by its grids and paths, with a network that is right."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow_cases import COVARIANCE, Gaussian, Right, gaussian

from mmgen_jax.config import Experiment, from_json, to_json
from mmgen_jax.data import Digits
from mmgen_jax.diffusion import (
    DDPM,
    EDM,
    ELBO,
    VDM,
    Churn,
    DPMSolver,
    Euler,
    Heun,
    KarrasGrid,
    LogSNRGrid,
    MeanFlow,
    MinSNR,
    RectifiedFlow,
    ShiftedGrid,
    Shortcut,
    Times,
    UniformGrid,
    UniformTimes,
    log_likelihood,
)
from mmgen_jax.diffusion.paths import Denoised
from mmgen_jax.diffusion.training import corrupted
from mmgen_jax.overrides import override
from mmgen_jax.types import Batch

PATHS = [RectifiedFlow(), DDPM(schedule="cosine", prediction="v"), EDM(data_std=1.0)]
IDS = ["flow", "cosine", "edm"]
LEVELS = dict(zip(PATHS, ({}, {}, {"grid": KarrasGrid()}), strict=True))
GRIDS = [UniformGrid(), ShiftedGrid(2.0), LogSNRGrid(), KarrasGrid()]


def covariance(model, n=4000):
    """Of samples, which have the mean 0 too."""
    made = model.sample({"params": {}}, jax.random.key(0), n)["v"]
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=0.05)
    return np.cov(made.T)


@pytest.mark.parametrize("path", PATHS[:2], ids=IDS[:2])
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_every_grid_leads_to_the_data(grid, path):
    model = gaussian(path=path, grid=grid, steps=24)
    np.testing.assert_allclose(covariance(model), COVARIANCE, atol=0.07)
    times = grid.times(path, 24)
    assert times.shape == (25,) and times[0] > 0.98 and times[-1] < 1e-6 and (np.diff(times) < 0).all()


@pytest.mark.parametrize("sampler", [Heun(), Churn(churn=0.2), DPMSolver()], ids=repr)
def test_noise_levels_by_themselves_lead_to_the_data(sampler):
    model = gaussian(path=EDM(data_std=1.0), grid=KarrasGrid(), sampler=sampler, steps=40)
    np.testing.assert_allclose(covariance(model), COVARIANCE, atol=0.07)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_what_a_network_is_trained_to_say_is_what_its_answer_is_taken_for(path):
    """No other answer than the right one has a smaller loss, whether larger, smaller or with an offset."""
    model = gaussian(path=path, times=Times(independent=1.0, shared=0.0), **LEVELS[path])
    v = np.random.default_rng(0).multivariate_normal([0, 0], COVARIANCE, 20_000).astype(np.float32)
    batch = Batch({"v": v}, {"v": np.ones(len(v), bool)})

    @jax.jit
    def error(scale, offset):
        class Off:
            def apply(self, params, *args, **options):
                return {"v": scale * Right(model).apply(params, *args)["v"] + offset}, {}

        seen = type("Seen", (Gaussian,), {"network": property(lambda _: Off())})
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        return seen(**fields).loss({}, batch, jax.random.key(1))[0].mean()

    best = error(1.0, 0.0)
    for wrong in ((0.5, 0.0), (1.5, 0.0), (1.0, 0.15), (1.0, -0.15)):
        assert error(*wrong) > best + 0.01, wrong


def test_the_error_of_noise_levels_counts_alike_at_all_of_them():
    """A network that says nothing is wrong by 1 at every time: F has the variance 1 if data have that of `data_std`."""
    path, rng = EDM(data_std=0.5), np.random.default_rng(0)
    x, noise = (jnp.asarray(scale * rng.normal(size=(4000, 1)), jnp.float32) for scale in (0.5, 1.0))
    level = path.level(jnp.linspace(0.0, 1.0, 9)[None])
    np.testing.assert_allclose(path.target(Denoised(x, noise), level).std(axis=0), 1, rtol=0.05)
    x_t = x + level[:, :8] * noise
    np.testing.assert_allclose(path.shown(x_t, level[:, :8]).std(axis=0), 1, rtol=0.05)
    both = path.understood(path.target(Denoised(x, noise), level[:, :8]), x_t, level[:, :8])
    np.testing.assert_allclose(both.data, np.broadcast_to(x, both.data.shape), atol=1e-3)
    np.testing.assert_allclose(both.noise, np.broadcast_to(noise, both.noise.shape), atol=1e-3)
    np.testing.assert_allclose(path.clock(level)[0], np.linspace(0, 1, 9), atol=2e-6)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_at_time_one_data_leave_no_trace_on_any_path(path):
    model = gaussian(path=path, **LEVELS[path])
    v, noise = jnp.full((3, 2), 5.0), jnp.ones((3, 2))
    seen = corrupted(model, {"v": v}, {"v": noise}, jax.random.key(0), {"v": jnp.array([0.5, 1.0, 0.0])})["v"]
    np.testing.assert_array_equal(seen[1], noise[1])
    assert not np.allclose(seen[0], noise[0])
    np.testing.assert_allclose(seen[2], model.clean({"v": v})["v"][2], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"path": "vdm"}, r"path is 'vdm', but must be one such as RectifiedFlow\(\)"),
        ({"path": VDM()}, r"weighting is Uniform.*, but must be ELBO\(\) with VDM\(\)"),
        ({"path": VDM(), "weighting": ELBO()}, r"times is .*, but must be of density UniformTimes\(\) with VDM\(\)"),
        (
            {"path": VDM(), "weighting": ELBO(), "times": Times(density=UniformTimes()), "grid": LogSNRGrid()},
            r"grid is LogSNRGrid.*, but must be UniformGrid\(\) or ShiftedGrid\(\) with VDM\(\)",
        ),
        ({"path": EDM()}, r"grid is UniformGrid\(\), but must be KarrasGrid\(\) or LogSNRGrid\(\) with EDM\(\)"),
        ({"path": EDM(), "grid": KarrasGrid(), "weighting": MinSNR()}, "weighting is MinSNR.*Uniform.* with EDM"),
        ({"sampler": Churn()}, r"sampler is Churn\(.*, but must be another than Churn\(\) unless path is EDM\(\)"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        gaussian(**fields)


def test_likelihoods_of_real_values_need_a_path_that_ends():
    model, v = gaussian(path=EDM(), grid=KarrasGrid()), np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match="path is EDM.*, but must end in noise alone at t = 1"):
        log_likelihood(model, {}, Batch({"v": v}, {"v": np.ones(1, bool)}), jax.random.key(0), "v")


def test_a_solver_is_no_worse_for_steps_that_end_elsewhere():
    """Twice as many steps halve the error of Euler, and quarter that of Heun, on every grid."""
    key = jax.random.key(0)
    exact = gaussian(steps=400).sample({"params": {}}, key, 300)["v"]
    for sampler, factor in ((Euler(), 1.7), (Heun(), 3.0)):
        for grid in GRIDS[:3]:
            runs = [gaussian(sampler=sampler, grid=grid, steps=n).sample({"params": {}}, key, 300) for n in (20, 40)]
            errors = [np.abs(run["v"] - exact).mean() for run in runs]
            assert errors[0] / errors[1] > factor, (sampler, grid, errors)


def test_shifted_steps_are_small_near_the_noise():
    steps = -np.diff(ShiftedGrid(3.0).times(RectifiedFlow(), 10))
    assert (np.diff(steps) > 0).all() and steps[0] < 0.04 and steps[-1] > 0.2


@pytest.mark.parametrize("objective", [MeanFlow(), Shortcut()], ids=["MeanFlow", "Shortcut"])
def test_objectives_for_few_steps_want_steps_of_one_size(objective):
    fields = {"objective": objective, "sampler": Euler(), "steps": 4}
    assert gaussian(**fields).grid == UniformGrid()
    with pytest.raises(ValueError, match=r"grid is LogSNRGrid\(.*, but must be UniformGrid\(\) with"):
        gaussian(grid=LogSNRGrid(), **fields)


def test_the_grid_is_set_from_the_command_line_and_read_back():
    from mmgen_jax import Flow, Vector

    model = Flow(modalities={"v": Vector(2)}, width=16, heads=2, grid=ShiftedGrid())
    experiment = override(Experiment(model=model, data=Digits(), steps=1), ["--model.grid.factor", "5"])
    assert experiment.model.grid == ShiftedGrid(5.0)
    assert from_json(to_json(experiment)).model.grid == ShiftedGrid(5.0)
