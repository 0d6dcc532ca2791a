"""Losses, penalties, spectral norm, path lengths, schedules and contrastive losses: stored values and gradients.

Every size and setting is read from the file; `--golden DIR` takes other files of the same format.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.gan import contrastive, losses, penalties, regularizers, spectral
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.train.players import ema_decay, lazily

LOSSES = {
    "minimax": losses.Minimax(),
    "non_saturating": losses.NonSaturating(),
    "least_squares": losses.LeastSquares(),
    "hinge": losses.Hinge(),
    "wasserstein": losses.Wasserstein(),
    "rpgan": losses.RpGAN(),
    "ragan": losses.RaGAN(),
}
ACTIVATIONS = {"tanh": jnp.tanh, "lrelu": lambda h: jnp.where(h > 0, h, 0.2 * h)}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def network(weights, activation):
    def apply(x):
        h = activation(x @ weights["W1"].T + weights["b1"][None])
        return h @ weights["W2"].T + weights["b2"][None]

    return apply


class Game:
    """The two networks of a file with one activation, and every term in it as a function of one player's weights."""

    def __init__(self, file, settings, activation):
        self.file, self.settings, self.activation = file, settings, ACTIVATIONS[activation]
        self.weights = {p: {k: jnp.asarray(file[f"{p}/{k}"]) for k in ("W1", "b1", "W2", "b2")} for p in "DG"}
        self.x = jnp.asarray(file["x"])

    def critic(self, weights):
        return lambda x: network(weights, self.activation)(x)[:, 0]

    def made(self, weights):
        return network(weights, jnp.tanh)(jnp.asarray(self.file["z"]))

    def penalty(self, name):
        s = self.settings
        r1, r2 = penalties.R1(gamma=s["gamma"]), penalties.R2(gamma=s["gamma"])
        return {
            "r1": (r1,),
            "r2": (r2,),
            "wgan_gp": (penalties.WGANGP(weight=s["lambda_gp"]),),
            "wgan_gp_one_sided": (penalties.WGANGP(weight=s["lambda_gp"], one_sided=True),),
            "ma_gp": (penalties.MAGP(),),
            "fd_r1": (penalties.R1(gamma=s["gamma"], sigma=s["fd_sigma"]),),
            "r3gan": (r1, r2),
        }[name]

    def term(self, player, name, weights):
        """Losses and penalties as the file names them: of D, G, or R, which regularises D."""
        fake = self.made(weights if player == "G" else self.weights["G"])
        critic = self.critic(self.weights["D"] if player == "G" else weights)
        values = critic(self.x), critic(fake)
        if player == "G":
            return LOSSES[name].generator(*values).mean()
        if name in LOSSES:
            return LOSSES[name].critic(*values).mean()
        if name == "lecam":
            moments = (jnp.asarray(self.settings[f"lecam_ema_{side}"]) for side in ("real", "fake"))
            return regularizers.LeCam(weight=1.0)(*values, regularizers.Moments(*moments)).mean()
        noise = penalties.Noise(jnp.asarray(self.file["gp_u"])[:, 0], jnp.asarray(self.file["fd_noise"]))
        total = sum(penalty(critic, self.x, fake, noise).mean() for penalty in self.penalty(name))
        return total + (LOSSES["rpgan"].critic(*values).mean() if name == "r3gan" else 0)


def check_losses(file):
    settings, seen = json.loads(str(file["meta"]))["settings"], 0
    for key in file:
        match = re.fullmatch(r"(\w+)\.([DGR])\.(\w+)/value", key)
        if not match:
            continue
        activation, player, name = match.groups()
        game, of = Game(file, settings, activation), "G" if player == "G" else "D"
        value, grads = jax.jit(jax.value_and_grad(lambda w: game.term(player, name, w)))(game.weights[of])  # noqa: B023
        np.testing.assert_allclose(value, file[key], rtol=1e-10, err_msg=key)
        for w, grad in grads.items():
            # The last bias moves no slope: the file leaves such a gradient out.
            wanted = file.get(key.replace("value", f"grad.{of}/{w}"), np.zeros_like(grad))
            np.testing.assert_allclose(grad, wanted, rtol=1e-8, atol=1e-10, err_msg=f"{key} {w}")
        seen += 1
    assert seen > 30


def check_spectral_norm(file):
    for kind in sorted({key.partition("/")[0] for key in file if "/u0" in key}):
        # Kernels here have the outputs last.
        w, cot = (jnp.moveaxis(jnp.asarray(file[f"{kind}/{name}"]), 0, -1) for name in ("weight", "cot"))
        u, done = jnp.asarray(file[f"{kind}/u0"]), 0
        for n in sorted(int(m[1]) for key in file if (m := re.fullmatch(rf"{kind}/iter(\d+)\.u", key))):
            for _ in range(n - 1 - done):
                u = spectral.iterated({"w": w}, {"w": u})["w"]
            of = f"{kind}/iter{n}"
            grad = jax.grad(lambda w, u: (spectral.normalised({"w": w}, {"w": u})["w"] * cot).sum())(w, u)  # noqa: B023
            np.testing.assert_allclose(spectral.sigma(w, u), file[f"{of}.sigma"], rtol=1e-10)
            np.testing.assert_allclose(jnp.moveaxis(grad, -1, 0), file[f"{of}.grad_weight"], rtol=1e-9, atol=1e-11)
            u, done = spectral.iterated({"w": w}, {"w": u})["w"], n
            np.testing.assert_allclose(u, file[f"{of}.u"], rtol=1e-9, atol=1e-11)


def check_path_length(file):
    image = jnp.moveaxis(jnp.asarray(file["pl/image"]), 1, -1)

    def make(weights, w):
        h = jnp.sin(sum(jnp.tanh(w[:, i] @ p.T) for i, p in enumerate(weights["P"])))
        return jnp.moveaxis((h @ weights["Q"].T).reshape(file["pl/image"].shape), 1, -1)

    def term(weights, constant):
        noise, w = jnp.moveaxis(jnp.asarray(file["pl/noise"]), 1, -1), jnp.asarray(file["pl/w"])
        settings = {name: float(file[f"pl/{name}"]) for name in ("weight", "decay")}
        penalty = regularizers.PathLength(**settings, constant=constant)
        values, mean = penalty(lambda w: make(weights, w), w, noise, jnp.asarray(file["pl/mean_before"]))
        return values.mean(), mean

    weights = {name: jnp.asarray(file[f"pl/{name}"]) for name in "PQ"}
    np.testing.assert_allclose(make(weights, jnp.asarray(file["pl/w"])), image, rtol=1e-12)
    for of, constant in (("pl_detached", True), ("pl", False)):
        (value, mean), grads = jax.value_and_grad(term, has_aux=True)(weights, constant)
        np.testing.assert_allclose(mean, file["pl/mean_after"], rtol=1e-12)
        np.testing.assert_allclose(value, file[f"{of}/value"], rtol=1e-10)
        for name, grad in grads.items():
            np.testing.assert_allclose(grad, file[f"{of}/grad.{name}"], rtol=1e-8, atol=1e-11)


def check_lazy_optimisers(file):
    for i, k in enumerate(file["lazy/interval"]):
        lazy = lazily(Optimizer(learning_rate=1.0, b1=0.5, b2=0.99), int(k))
        found = (lazy.learning_rate, lazy.b2, lazy.b1)
        wanted = [file[f"lazy/{name}"][i] for name in ("lr_factor", "beta2_from_0.99", "beta1_from_0.5")]
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def check_schedules(file):
    """Settings of which there are no arrays stand in the names of the keys."""
    short, ramped = "ema/beta_half_life_10k_batch32", "ema/beta_rampup_0.05_half_life_500k_batch64"
    np.testing.assert_allclose(ema_decay(32, 10_000), file[short], rtol=1e-12)
    found = ema_decay(64, 500_000, jnp.asarray(file["ema/cur_nimg"]), ramp=0.05)
    np.testing.assert_allclose(found, file[ramped], rtol=1e-12)
    rate = Optimizer(learning_rate=2e-4, schedule="cosine", final=5e-5).rate(1000)
    found = [rate(round(1000 * progress)) for progress in file["cosine/progress"]]
    np.testing.assert_allclose(found, file["cosine/lr_2e-4_to_5e-5"], rtol=1e-10)


def check_contrastive(file):
    settings = json.loads(str(file["meta"]))["settings"]
    scale = 1 / settings["infonce_tau"]
    start = {
        "clip": {"log_scale": settings["clip_log_scale"]},
        "infonce": {},
        "infonce_one_way": {},
        "siglip": {"log_scale": settings["siglip_log_scale"], "bias": settings["siglip_bias"]},
    }
    losses = {
        "clip": contrastive.clip,
        "infonce": lambda a, b: contrastive.info_nce(a, b, scale),
        "infonce_one_way": lambda a, b: contrastive.one_way(a, b, scale),
        "siglip": contrastive.siglip,
    }
    a, b = jnp.asarray(file["a"]), jnp.asarray(file["b"])
    np.testing.assert_allclose(contrastive.cosines(a, b), file["cosine"], rtol=1e-12)
    for name, loss in losses.items():
        learned = {"a": a, "b": b} | {key: jnp.asarray(value) for key, value in start[name].items()}
        value, grads = jax.value_and_grad(lambda learned: loss(**learned).mean())(learned)  # noqa: B023
        np.testing.assert_allclose(value, file[f"{name}/value"], rtol=1e-10, err_msg=name)
        for key, grad in grads.items():
            wanted = file[f"{name}/grad.{key}"]
            np.testing.assert_allclose(grad, wanted, rtol=1e-8, atol=1e-12, err_msg=f"{name} {key}")


CHECKS = {
    "contrastive": (check_contrastive,),
    "losses": (check_losses,),
    "spectral_norm": (check_spectral_norm,),
    "stylegan": (check_path_length, check_lazy_optimisers, check_schedules),
}


def reads(path):
    return path.stem in CHECKS


def test_golden(golden_gan):
    for check in CHECKS[golden_gan.stem]:
        with np.load(golden_gan) as file:
            check(dict(file))
