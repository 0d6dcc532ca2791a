"""Paths, schedules, weights, samplers and masked decoding against the numbers of reference implementations.

Every size, constant and setting is read from the file. `--golden DIR` takes other files of the same format. Networks
are exact: the data are a mixture of two Gaussians, of which E[x | x_t] and E[eps | x_t] are known.
"""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.diffusion import grids, schedules, weights
from mmgen_jax.diffusion.dpm_solver import DPMSolver
from mmgen_jax.diffusion.edm import EDM
from mmgen_jax.diffusion.guidance import Guidance
from mmgen_jax.diffusion.paths import DDPM, Denoised, RectifiedFlow, convert, denoised, noised
from mmgen_jax.diffusion.samplers import DDIM, Ancestral, Churn, Euler, Heun, Renoise, sample
from mmgen_jax.nn import maskgit

KINDS = {"epsilon": "noise", "sample": "data", "v_prediction": "v", "flow_prediction": "velocity"}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "cosine", "squaredcos_cap_v2": "cosine"}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


class File:
    """The arrays of a file, its description, and its exact denoiser's mixture."""

    def __init__(self, path):
        with np.load(path) as file:
            self.arrays = dict(file)
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.settings = self.meta.get("settings", {})
        self.mixture = [self.arrays.get(f"mix/{k}") for k in ("w", "mu", "s")]
        self.in_single_precision = set()  # the samplers already seen in it

    def __getitem__(self, key):
        return self.arrays[key]

    @property
    def cases(self):
        """Those that the reference could compute, each with its name."""
        for name, case in self.meta["cases"].items():
            if "skipped" not in case:
                yield name, case

    def ddpm(self, case=None, schedule=None):
        """The path of the settings: those of the file, of the schedule in it, of the case."""
        shared = self.settings.get("schedules", self.settings).get(schedule, {})
        s = {**self.settings, **(shared if isinstance(shared, dict) else {}), **(case or {})}
        name = SCHEDULES[s.get("beta_schedule", schedule)]
        ends = None if name == "cosine" else (s["beta_start"], s["beta_end"])
        zero = s.get("rescale_betas_zero_snr", False)
        return DDPM(
            schedule=name, steps=self.settings["num_train_timesteps"], ends=ends, zero_terminal_snr=zero, prediction="v"
        )


def assert_close(ours, expected, atol=1e-9):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=atol)


def exact(mixture, x, c) -> Denoised:
    w, mu, s = (jnp.asarray(m, x.dtype) for m in mixture)
    mu, s = mu[:, None], s[:, None]
    v, d = c.alpha**2 * s**2 + c.sigma**2, x[None] - c.alpha * mu
    r = jax.nn.softmax(jnp.log(w)[:, None] - 0.5 * (jnp.log(v) + d**2 / v).sum(-1), axis=0)[..., None]
    return Denoised((r * (mu + c.alpha * s**2 / v * d)).sum(0), (r * c.sigma * d / v).sum(0))


def predictor(mixture, path, kind):
    """A network that says what is exact, by a prediction of some kind; "edm" is that of Karras et al."""

    def predict(x, t):
        c = path.coefficients(t)
        both = exact(mixture, x, c)
        if kind == "edm":
            p = path.preconditioning(t)
            output = (both.data - p.c_skip * x) / p.c_out
            return denoised(p.c_skip * x + p.c_out * output, "data", x, c), None
        return denoised(both.to(kind, c), kind, x, c), None

    return predict


@functools.partial(jax.jit, static_argnames=("sampler", "path", "kind"))
def move(sampler, path, kind, mixture, x, t, s, memory, noise):
    return sampler.move(predictor(mixture, path, kind), path, x, t, s, memory, noise)[:2]


def trajectory(samplers, path, kind, mixture, x, steps, noise, dtype="float64"):
    """All states of the steps (t, s), each by its sampler, with the noise of its number."""
    cast = functools.partial(jnp.asarray, dtype=dtype)
    x = cast(x)
    memory, states = samplers[0].start(x), [x]
    for sampler, (t, s), z in zip(samplers, steps, noise, strict=False):
        x, memory = move(sampler, path, kind, mixture, x, cast(t), cast(s), memory, cast(z))
        states.append(x)
    return np.stack(states)


def check(file, case, name, samplers, path, kind, x, steps, noise=None, atol=1e-9):
    """A case in float64; in float32 too if it is the first of its sampler that the reference can do in it."""
    noise = np.zeros((len(steps), *x.shape)) if noise is None else noise
    run = functools.partial(trajectory, samplers, path, kind, file.mixture, x, steps, noise)
    expected = file[f"{name}/x"]
    assert_close(run(), expected, atol)
    single = float(case.get("native_f32_max_dev", "nan"))
    if np.isfinite(single) and samplers[0] not in file.in_single_precision:
        file.in_single_precision.add(samplers[0])
        assert_close(run("float32"), expected, 10 * max(1e-5, single))


def pairs(times):
    times = np.asarray(times)
    return list(zip(times[:-1], times[1:], strict=True))


def test_golden(golden_diffusion):
    file = File(golden_diffusion)
    name = file.meta["fixture"].split("/")[-1]
    CHECKS[next(k for k in CHECKS if name.startswith(k))](file)


def check_tables(file):
    for name in sorted({k.split("/")[0] for k in file.arrays if k.endswith("/alphas_cumprod")}):
        schedule, zero = name.removesuffix(".ztsnr"), name.endswith(".ztsnr")
        path = file.ddpm({"rescale_betas_zero_snr": zero}, schedule)
        assert_close(path.alphas_cumprod, file[f"{name}/alphas_cumprod"], 1e-12)
        assert_close(path.betas[::20], file[f"{name}/betas_every20"], 1e-12)
        assert_close(path.betas[-5:], file[f"{name}/betas_last5"], 1e-12)
        c = path.coefficients(jnp.asarray(path.time(np.arange(path.steps))))
        assert_close(c.alpha**2, path.alphas_cumprod, 1e-12)
    steps = file.settings["num_train_timesteps"]
    for key in (k for k in file.arrays if k.startswith("timesteps")):
        kind, spacing, n = key.split(".")
        n = int(n[1:])
        if kind == "timesteps_dpm" and spacing != "trailing":
            ours = schedules.timesteps(spacing, n + 1, steps)[:-1]
        else:
            ours = schedules.timesteps(spacing, n, steps)
        np.testing.assert_array_equal(ours, file[key], err_msg=key)
    check_single_steps(file)


def check_single_steps(file):
    path = file.ddpm(schedule="linear")
    c = path.coefficients(jnp.asarray(path.time(file["t"]))[:, None])
    x_t = noised(file["x0"], file["noise"], c)
    assert_close(x_t, file["linear/add_noise"])
    assert_close(convert(jnp.asarray(file["noise"]), "noise", "v", x_t, c), file["linear/velocity"])
    t = file["linear/posterior_t"]
    a, b = (path.coefficients(jnp.asarray(path.time(i))) for i in (t, t - 1))
    leap = functools.partial(Ancestral().leap, eps=0.0, a=a, b=b)
    assert_close(leap(x=0.0, data=1.0, z=0.0), file["linear/posterior_coef_x0"])
    assert_close(leap(x=1.0, data=0.0, z=0.0), file["linear/posterior_coef_xt"])
    assert_close(leap(x=0.0, data=0.0, z=1.0) ** 2, file["linear/posterior_variance"])


def check_ddim(file):
    s = file.settings
    path, steps = file.ddpm(), s["num_train_timesteps"]
    end = path.time(-1 if s["set_alpha_to_one"] else 0)
    for name, case in file.cases:
        n = case["n"]
        indices = schedules.timesteps(s["timestep_spacing"], n, steps, s["steps_offset"])
        np.testing.assert_array_equal(indices, file[f"n{n}/timesteps"])
        c = path.coefficients(jnp.asarray([*path.time(indices), end]))
        assert_close(c.alpha, file[f"n{n}/alpha"])
        assert_close(c.sigma, file[f"n{n}/sigma"])
        before = indices - steps // n  # the reference's: not always the next of the list
        moves = list(zip(path.time(indices), np.where(before < 0, end, path.time(before)), strict=True))
        sampler = DDIM(eta=case["eta"])
        # From alpha = 0 with eta = 1 the weight of eps is 0; the reference's is the root of a rounding error.
        atol = 3 * np.finfo(float).eps ** 0.5 if path.zero_terminal_snr and case["eta"] == 1 else 1e-9
        kind = KINDS[case["prediction_type"]]
        check(file, case, name, [sampler] * n, path, kind, file["x_T"], moves, file["noise"], atol)
    check_rescale(file)


def check_rescale(file):
    for key in (k for k in file.arrays if k.startswith("cfg_rescale/phi")):
        guidance = Guidance(rescale=float(key.removeprefix("cfg_rescale/phi")))
        cond, guided = (jnp.asarray(file[f"cfg_rescale/{k}"]) for k in ("cond", "guided"))
        assert_close(guidance.within(cond, guided, jnp.asarray(0.5)), file[key])


def check_ddpm(file):
    """The reference adds noise in a last step from an index above 0, 1e-10 if small, all of it if large: we do not."""
    steps = file.settings["num_train_timesteps"]
    for name, case in file.cases:
        n, path = case["n"], file.ddpm(schedule=case["schedule"])
        indices = schedules.timesteps(case["timestep_spacing"], n, steps, case["steps_offset"])
        np.testing.assert_array_equal(indices, file[f"{case['schedule']}.n{n}/timesteps"])
        sampler = Ancestral(variance=case["variance_type"].removeprefix("fixed_"))
        last = path.coefficients(jnp.asarray(path.time(indices[-1])))
        if sampler.variance == "large" and indices[-1] > 0:
            file.arrays[f"{name}/x"][-1] -= last.sigma * file["noise"][n - 1]
        moves, kind = pairs([*path.time(indices), 0.0]), KINDS[case["prediction_type"]]
        check(file, case, name, [sampler] * n, path, kind, file["x_T"], moves, file["noise"])


def orders(case):
    """The order of each step: the first ones, and the one to sigma = 0, are lower by themselves."""
    n, order, short = case["n"], case["solver_order"], case["lower_order_final"] and case["n"] < 15
    out = [order] * n
    if short:
        out[-2:] = [min(order, 2), 1]
    if case["euler_at_final"]:
        out[-1] = 1
    return out[-n:]


def check_dpm(file):
    for name, case in file.cases:
        alpha, sigma = (file[f"{case['grid']}/{k}"] for k in ("alpha", "sigma"))
        check_dpm_grid(file, case, alpha, sigma)
        flow = case.get("use_flow_sigmas", False)
        path = RectifiedFlow() if flow else file.ddpm(case)
        times = sigma if flow else grids.times_at(path, sigma / alpha)
        solver = DPMSolver(
            order=case["solver_order"], sde=case["algorithm_type"].startswith("sde"), kind=case["solver_type"]
        )
        solvers = [dataclasses.replace(solver, order=order) for order in orders(case)]
        noise = file["noise"] if solver.sde else None
        check(file, case, name, solvers, path, KINDS[case["prediction_type"]], file["x_T"], pairs(times), noise)


def check_dpm_grid(file, case, alpha, sigma):
    n, steps = case["n"], file.settings["num_train_timesteps"]
    if case.get("use_flow_sigmas", False):
        return assert_close(grids.shift(grids.uniform(n, 1 - 1 / steps), case["flow_shift"]), sigma)
    path, spacing = file.ddpm(case), case["timestep_spacing"]
    levels = path.coefficients(jnp.asarray(path.time(np.arange(steps))))
    levels = levels.sigma / levels.alpha
    if case.get("use_karras_sigmas", False):
        return assert_close(grids.karras(n, levels[0], levels[-1]), sigma / alpha)
    offset = case.get("steps_offset", 0)
    if spacing == "trailing":
        indices = schedules.timesteps(spacing, n, steps)
    else:
        indices = schedules.timesteps(spacing, n + 1, steps, offset)[:-1]
    np.testing.assert_array_equal(indices, file[f"{case['grid']}/timesteps"])
    c = path.coefficients(jnp.asarray([*path.time(indices), path.time(-1 if sigma[-1] == 0 else 0)]))
    first = int(path.zero_terminal_snr)  # there the reference stops at alpha = 2^-12
    assert_close(c.alpha[first:], alpha[first:])
    assert_close(c.sigma[first:], sigma[first:])


def check_edm(file):
    s = file.settings
    path = EDM(data_std=s["sigma_data"])
    for name, case in file.cases:
        n = case["n"]
        times = grids.karras(n, s["sigma_min"], s["sigma_max"], s["rho"])
        assert_close(times, file[f"n{n}/sigmas"])
        p = path.preconditioning(times[:-1])
        for key in ("c_skip", "c_out", "c_in", "c_noise"):
            assert_close(getattr(p, key), file[f"n{n}/{key}"])
        np.testing.assert_allclose(path.weight(times[:-1]), file[f"n{n}/loss_weight"], rtol=1e-9)
        sampler = DPMSolver()
        if "s_churn" in case:
            sampler = Churn(
                solver=Heun() if name.startswith("heun") else Euler(), churn=case["s_churn"] / n,
                low=s["S_tmin"], high=float(s["S_tmax"]), noise_scale=s["S_noise"],
            )  # fmt: skip
        x = file["z"] * s["sigma_max"]
        check(file, case, name, [sampler] * n, path, "edm", x, pairs(times), file["noise"])
    fine = [grids.karras(n, s["sigma_min"], s["sigma_max"], s["rho"])[:-1] for n in (400, 800)]
    errors = [ode_error(file, path, DPMSolver(), grid) for grid in fine]
    assert errors[1] < 1e-2 and errors[0] / errors[1] > 3, errors


def ode_error(file, path, sampler, grid, key="ode_exact"):
    start = file["z"] * grid[0] if "z" in file.arrays else file["x_T"]
    predict = predictor(file.mixture, path, "noise" if isinstance(path, EDM) else "velocity")
    run = jax.jit(functools.partial(sample, sampler, predict, path))
    return np.abs(run(jnp.asarray(start), grid, jax.random.key(0)) - file[key]).max()


def check_heun_vp(file):
    table = file.ddpm()
    steps = table.steps
    c = table.coefficients(jnp.asarray(table.time(np.arange(steps))))
    levels = c.sigma / c.alpha
    for name, case in file.cases:
        n, sigmas = case["n"], file[f"{case['grid']}/sigmas"]
        if case.get("use_karras_sigmas", False):
            ours = grids.karras(n, levels[0], levels[-1])
        elif case.get("timestep_spacing") == "trailing":
            ours = [*levels[schedules.timesteps("trailing", n, steps)], 0.0]
        else:
            ours = [*np.interp(np.linspace(steps - 1, 0, n), np.arange(steps), levels), 0.0]
        assert_close(np.asarray(ours), sigmas)
        sampler = Heun() if case["scheduler"].startswith("Heun") else Euler()
        x = file["z"] * sigmas[0]
        check(file, case, name, [sampler] * n, EDM(), KINDS[case["prediction_type"]], x, pairs(sigmas))


def flow_grid(case, steps):
    n, factor = case["n"], case.get("shift", 1.0)
    if case.get("use_dynamic_shifting"):
        factor = np.exp(case["mu"])
    times = grids.uniform(n)[:-1]
    if case.get("sigmas") != "custom":  # the reference shifts both ends, then all
        times = jnp.linspace(grids.shift(1.0, factor), grids.shift(1 / steps, factor), n)
    times = grids.shift(times, factor)
    if "shift_terminal" in case:
        times = grids.stretch(times, case["shift_terminal"])
    if case.get("use_karras_sigmas"):
        return grids.karras(n, times[-1], times[0])
    return jnp.append(times, 0.0)


def check_flow(file):
    path, steps = RectifiedFlow(), file.settings["num_train_timesteps"]
    for name, case in file.cases:
        n, grid = case["n"], flow_grid(case, steps)
        assert_close(grid, file[f"{case['grid']}/sigmas"])
        assert_close(steps * grid[:-1], file[f"{case['grid']}/timesteps"])
        sampler = Heun() if "Heun" in case["scheduler"] else Euler()
        if case.get("stochastic_sampling"):
            sampler = Renoise()
        check(file, case, name, [sampler] * n, path, "velocity", file["x_T"], pairs(grid), file["noise"])
    check_flow_order(file, path)


def check_flow_order(file, path):
    near = next(k for k in file.arrays if k.startswith("ode_exact_to_"))
    stop = float(near.removeprefix("ode_exact_to_"))
    for sampler, order in ((Euler(), 1), (DDIM(), 1), (Heun(), 2), (DPMSolver(), 2)):
        errors = [ode_error(file, path, sampler, grids.uniform(n, 1.0, stop), near) for n in (160, 320)]
        assert errors[0] / errors[1] > 0.75 * 2**order, (sampler, errors)
    assert ode_error(file, path, Heun(), grids.uniform(320)) < 1e-2


def check_maskgit(file):
    for key in (k for k in file.arrays if k.startswith("counts_exact.")):
        _, schedule, n, steps = key.split(".")
        ours = maskgit.masks_left(int(n[1:]), int(steps[1:]), schedule)
        np.testing.assert_array_equal(ours, file[key], err_msg=key)
    for name, case in file.cases:
        if not name.startswith("decode."):
            continue
        tokens, steps = jnp.asarray(file[f"{name}/start"]), case["steps"]
        left = maskgit.masks_left(tokens.shape[-1], steps, case["schedule"])
        temperatures = np.linspace(*case["temperature"], steps)
        assert_close(temperatures, file[f"{name}/temperatures"])
        gumbel = -np.log(-np.log(file[f"{name}/uniform"]))
        for k in range(steps):
            ids, logits = jnp.asarray(file[f"{name}/ids"][k]), jnp.asarray(file[f"{name}/logits"][k])
            tokens = maskgit.keep_confident(
                tokens, ids, logits, gumbel[k], left[k], temperatures[k], case["mask_id"]
            )  # fmt: skip
            np.testing.assert_array_equal(tokens, file[f"{name}/tokens"][k], err_msg=f"{name}, step {k}")


def check_weights(file):
    s = file.settings
    for name in sorted({k.split("/")[0] for k in file.arrays if k.endswith("/snr")}):
        path = file.ddpm({"rescale_betas_zero_snr": name.endswith(".ztsnr")}, name.removesuffix(".ztsnr"))
        c = path.coefficients(jnp.asarray(path.time(file["t"])))
        np.testing.assert_allclose((c.alpha / c.sigma) ** 2, file[f"{name}/snr"], rtol=1e-9, atol=1e-15)
        rules = {"min_snr": weights.MinSNR(s["gamma"]), "sigmoid": weights.Sigmoid(s["sigmoid_bias"])}
        for rule, weight in rules.items():
            for prediction in (k for k in KINDS if f"{name}/{rule}.{k}" in file.arrays):
                assert_close(weight(c, KINDS[prediction]), file[f"{name}/{rule}.{prediction}"])
    t = jnp.asarray(file["grid"])
    for key in file.arrays:
        if found := re.fullmatch(r"logit_normal\.m(.+)\.s(.+)/u", key):
            check_times(file, weights.LogitNormal(*map(float, found.groups())), "normal_draws", key)
        if found := re.fullmatch(r"mode\.s(.+)/u", key):
            check_times(file, weights.Mode(float(found[1])), "uniform_draws", key)
        if found := re.fullmatch(r"shift(.+)", key):
            assert_close(grids.shift(t, float(found[1])), file[key])
    c = RectifiedFlow().coefficients(t)
    assert_close(weights.Cosmap()(c, "velocity"), file["sd3_weight.cosmap"])
    np.testing.assert_allclose(weights.InverseVariance()(c, "velocity"), file["sd3_weight.sigma_sqrt"], rtol=1e-9)


def check_times(file, times, draws, key):
    assert_close(times.at(jnp.asarray(file[draws])), file[key])
    np.testing.assert_allclose(times.pdf(jnp.asarray(file["grid"])), file[key.replace("/u", "/pdf")], rtol=1e-8)


CHECKS = {
    "tables": check_tables, "ddim": check_ddim, "ddpm": check_ddpm, "dpm": check_dpm, "edm": check_edm,
    "heun_vp": check_heun_vp, "flow": check_flow, "maskgit": check_maskgit, "weights": check_weights,
}  # fmt: skip
