"""A path that is learned with the network: what moves it, what it is good for, and samples along it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flow_cases import COVARIANCE, gaussian
from vae_cases import random_batch

from mmgen_jax.diffusion import ELBO, VDM, Flow, Times, UniformTimes
from mmgen_jax.diffusion.training import errors
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.types import Batch

KEY = jax.random.key(0)
LEARNED = {"path": VDM(low=-6.0, high=6.0), "weighting": ELBO(), "times": Times(density=UniformTimes())}


def test_the_path_follows_the_square_of_the_loss_and_the_network_the_loss():
    """Equation (4), and nothing moves the ends."""
    modalities = {"v": Vector(2), "label": Label(3)}
    model = Flow(modalities=modalities, width=16, joint=0, depth=1, heads=2, **LEARNED)
    params, _ = jax.jit(model.init)(KEY)
    params = {**jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params), "path": params["path"]}
    batch = random_batch(modalities, 6, present=0.8).masked()

    @jax.jit
    def gradients(params):
        def plain(path, rest):
            whole = {**rest, "path": path}
            return errors(model.on_path(whole), whole, batch, KEY, whole)[0]

        rest = {name: x for name, x in params.items() if name != "path"}
        ours = jax.grad(lambda p: model.loss(p, batch, KEY)[0].mean())(params)
        path = jax.grad(lambda path: jnp.square(plain(path, rest)).mean())(params["path"])
        return ours, {**jax.grad(lambda rest: plain(params["path"], rest).mean())(rest), "path": path}

    ours, expected = gradients(params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), ours, expected)
    assert ours["path"]["low"] == 0 == ours["path"]["width"]
    assert all(np.abs(ours["path"][name]).max() > 1e-3 for name in "abc")


def test_learning_it_lowers_the_variance_of_the_loss_and_leaves_its_mean():
    """By a network that is right, of data that are known: the mean is an integral over noise levels."""
    model, tx, n = gaussian(**LEARNED), optax.adam(0.03), 512
    x = jax.random.normal(KEY, (n, 2)) @ jnp.linalg.cholesky(COVARIANCE).T
    batch, start = Batch({"v": x}, {"v": jnp.ones(n, bool)}), {"path": model.path.init(jnp.float32)}

    @jax.jit
    def step(carry, i):
        params, opt = carry
        grads = jax.grad(lambda p: model.loss(p, batch, jax.random.fold_in(KEY, i))[0].mean())(params)
        updates, opt = tx.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), None

    @jax.jit
    def losses(params):
        keys = jax.random.split(jax.random.key(1), 40)
        return jax.lax.map(lambda key: model.loss(params, batch, key)[0], keys)

    learned = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), jnp.arange(150))[0][0])()
    before, after = losses(start), losses(learned)
    assert after.var() < 0.8 * before.var()
    spread = 4 * np.sqrt((before.var() + after.var()) / before.size)
    np.testing.assert_allclose(after.mean(), before.mean(), atol=spread)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_samples_along_it_are_of_the_data(shift):
    """Whatever the parameters in between are: with `shift`, steps that are far from equal."""
    model = gaussian(**LEARNED, steps=60)
    path = model.path.init(jnp.float32)
    path = {**path, "a": path["a"] + shift * jnp.arange(16) / 4}
    made = model.sample({"params": {"path": path}}, KEY, 4000)["v"]
    np.testing.assert_allclose(np.cov(made.T), COVARIANCE, atol=0.08)
