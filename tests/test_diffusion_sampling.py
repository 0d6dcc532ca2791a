"""Samples of a flow by its grids and paths, with a network that is right."""

import jax
import numpy as np
import pytest
from flow_cases import COVARIANCE, gaussian

from mmgen_jax.config import Experiment, from_json, to_json
from mmgen_jax.data import Digits
from mmgen_jax.diffusion import (
    DDPM,
    Euler,
    Heun,
    KarrasGrid,
    LogSNRGrid,
    MeanFlow,
    RectifiedFlow,
    ShiftedGrid,
    Shortcut,
    UniformGrid,
)
from mmgen_jax.overrides import override

GRIDS = [UniformGrid(), ShiftedGrid(2.0), LogSNRGrid(), KarrasGrid()]


def covariance(model, n=4000):
    """Of samples, which have the mean 0 too."""
    made = model.sample({"params": {}}, jax.random.key(0), n)["v"]
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=0.05)
    return np.cov(made.T)


@pytest.mark.parametrize("path", [RectifiedFlow(), DDPM(schedule="cosine", prediction="v")], ids=["flow", "cosine"])
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_every_grid_leads_to_the_data(grid, path):
    model = gaussian(path=path, grid=grid, steps=24)
    np.testing.assert_allclose(covariance(model), COVARIANCE, atol=0.07)
    times = grid.times(path, 24)
    assert times.shape == (25,) and times[0] > 0.98 and times[-1] < 1e-6 and (np.diff(times) < 0).all()


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
