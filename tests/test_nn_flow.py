"""The masked flow: the numbers of a reference implementation, who sees whom, and that it is what it undoes."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.nn.flow import MaskedFlow
from mmgen_jax.vae.latent import Gaussian


def random_flow(dim: int, **sizes: int):
    """A flow and parameters that are far from the start, so that nothing holds only because the last layer is zero."""
    flow = MaskedFlow(dim=dim, **{"hidden": 16, "layers": 2, "blocks": 3} | sizes)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(flow.init, jax.random.key(0))
    return flow, jax.tree.map(lambda x: jnp.asarray(0.25 * rng.normal(size=x.shape), x.dtype), shapes)


class Reference:
    """The flows of one file: sizes, parameters of a modality in our layout, numbers."""

    def __init__(self, path):
        with np.load(path) as file:
            self.file = {key: file[key] for key in file.files}
        meta = json.loads(str(self.file["meta"]))
        hp, self.layout = meta["hp"], meta["layout"]
        self.names = [m["name"] for m in meta["modalities"]]
        self.single = [meta["cond_subsets"].index(m) for m in self.names]
        self.flow = MaskedFlow(
            dim=hp["latent_dim"], hidden=hp["made_hidden"], layers=hp["made_hidden_layers"], blocks=hp["made_blocks"]
        )

    def unpack(self, group: str) -> dict[str, np.ndarray]:
        ends = np.cumsum([int(np.prod(shape)) for _, shape in self.layout[group]])
        parts = np.split(self.file[group], ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.layout[group], parts, strict=True)}

    def layers(self, flat: dict[str, np.ndarray], name: str, *leaves: str) -> dict:
        def stacked(i: int, leaf: str) -> np.ndarray:  # the reference counts the ReLUs between as well
            return np.stack([flat[f"flows.{name}.net.{b}.net.{2 * i}.{leaf}"] for b in range(self.flow.blocks)])

        return {f"layer_{i}": {leaf: stacked(i, leaf) for leaf in leaves} for i in range(self.flow.layers + 1)}

    def params(self, group: str) -> list[dict]:
        return [self.layers(self.unpack(group), name, "kernel", "bias") for name in self.names]

    def experts(self) -> Gaussian:
        return Gaussian(jnp.asarray(self.file["post/uni/mu"]), jnp.asarray(self.file["post/uni/logvar"]))

    def codes(self) -> np.ndarray:
        (noise,) = [value for key, value in self.file.items() if key.startswith("noise/")]
        return self.file["post/joint/mu"] + np.exp(self.file["post/joint/logvar"] / 2) * noise


def reads(path):
    """Only files that have flows; `jnf_joint` has their masks, but no numbers of them."""
    with np.load(path) as file:
        return "post/flow/z0" in file


@pytest.fixture
def reference(golden_vae):
    with jax.enable_x64(True):
        yield Reference(golden_vae)


def test_masks_and_numbers_of_the_reference(reference):
    buffers = reference.unpack("buf")
    for name in reference.names:
        masks = reference.layers(buffers, name, "mask")
        for i, mask in enumerate(reference.flow.masks()):
            for block in masks[f"layer_{i}"]["mask"]:
                np.testing.assert_array_equal(mask, block)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    flow, file, codes = reference.flow, reference.file, jnp.asarray(reference.codes())
    for i, params in enumerate(reference.params("w")):
        expert = jax.tree.map(lambda x, i=i: x[i], reference.experts())
        u, log_det = jax.jit(flow.forward)(params, codes)
        close(u, file["post/flow/z0"][i])
        close(log_det, file["term/log_det"][i])
        close(expert.log_prob(u) + log_det, file["term/log_q"][i])
        z, back = jax.jit(flow.inverse)(params, u)
        close(z, codes)
        close(back, -log_det)
        close(jax.jit(flow.inverse)(params, expert.mean)[0], file["cond/z"][reference.single[i]])


def test_gradients_of_the_reference(reference):
    codes, experts = jnp.asarray(reference.codes()), reference.experts()

    def loss(params):
        flowed = [reference.flow.forward(p, codes) for p in params]
        us, log_dets = (jnp.stack(x) for x in zip(*flowed, strict=True))
        return -(experts.log_prob(us) + log_dets).sum(0).mean()

    grads = jax.jit(jax.grad(loss))(reference.params("w"))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)
    jax.tree.map(close, grads, reference.params("g"))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_inverse_undoes_and_the_determinant_is_that_of_the_jacobian(dim):
    flow, params = random_flow(dim)
    z = jax.random.normal(jax.random.key(2), (4, dim))
    u, log_det = jax.jit(flow.forward)(params, z)
    back, back_log_det = jax.jit(flow.inverse)(params, u)
    np.testing.assert_allclose(back, z, atol=1e-4)
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-4)
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda z: flow.forward(params, z)[0])))(z)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobians)[1], atol=1e-4)


@pytest.mark.parametrize("layers", [1, 3])
def test_one_block_is_autoregressive_and_uses_all_that_it_may(layers):
    flow, params = random_flow(6, layers=layers, blocks=1, hidden=64)
    jacobian = jax.jit(jax.jacrev(lambda z: flow.forward(params, z)[0]))(jnp.ones(6))[::-1]
    np.testing.assert_array_equal(jacobian != 0, np.tril(np.ones((6, 6), bool)))


def test_it_starts_as_the_identity():
    z = jax.random.normal(jax.random.key(0), (3, 5))
    for blocks in (1, 2):
        flow = MaskedFlow(dim=5, blocks=blocks)
        u, log_det = flow.forward(flow.init(jax.random.key(1)), z)
        np.testing.assert_array_equal(u, z if blocks == 2 else z[:, ::-1])
        np.testing.assert_array_equal(log_det, np.zeros(3))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_any_leading_axes(shape):
    flow, params = random_flow(4)
    z = jax.random.normal(jax.random.key(3), (*shape, 4))
    flat = z.reshape(-1, 4)
    for direction in (flow.forward, flow.inverse):
        out, log_det = direction(params, z)
        assert out.shape == z.shape and log_det.shape == shape
        np.testing.assert_allclose(out.reshape(-1, 4)[-1], direction(params, flat[-1])[0], rtol=1e-5, atol=1e-6)


def test_the_inverse_is_differentiable():
    """The gradient through D sequential steps is the inverse of the Jacobian of the single pass."""
    flow, params = random_flow(3)
    u = jnp.array([0.3, -1.0, 0.5])
    z, _ = flow.inverse(params, u)
    there = jax.jit(jax.jacrev(lambda z: flow.forward(params, z)[0]))(z)
    back = jax.jit(jax.jacrev(lambda u: flow.inverse(params, u)[0]))(u)
    np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-4)
    grads = jax.jit(jax.grad(lambda params: flow.inverse(params, u)[0].sum()))(params)
    assert all(jnp.isfinite(g).all() and jnp.any(g != 0) for g in jax.tree.leaves(grads))


def test_far_codes_do_not_reach_what_must_not_see_them():
    """An infinite number times a mask of zero is not zero: dimensions not yet found must stay finite."""
    flow, params = random_flow(3, blocks=1)
    params["layer_2"]["bias"] = params["layer_2"]["bias"].at[:, -1].set(100.0)  # the last dimension overflows
    z, _ = flow.inverse(params, jnp.ones(3))
    assert jnp.isfinite(z[:2]).all()


def test_a_bound_keeps_the_scale_within_it_and_the_inverse_exact():
    flow, params = random_flow(3, blocks=1, bound=0.5)
    z = 1e3 * jax.random.normal(jax.random.key(4), (20, 3))
    u, log_det = jax.jit(flow.forward)(params, z)
    assert jnp.abs(log_det).max() <= 3 * 0.5 and jnp.abs(log_det).max() > 0.5
    np.testing.assert_allclose(jax.jit(flow.inverse)(params, u)[0], z, rtol=1e-3, atol=1e-2)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="bound is 0.0, but must be positive or None"):
        MaskedFlow(dim=2, bound=0.0)
    with pytest.raises(ValueError, match="hidden is 0, but must be at least 1"):
        MaskedFlow(dim=2, hidden=0)
