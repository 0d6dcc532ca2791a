"""The objectives against the numbers of a reference implementation: losses, terms, posteriors, gradients, likelihoods.

Every size, constant and hyper-parameter is read from the file. `--golden DIR` takes other files of the same format;
models that are not built yet are skipped by name.
"""

import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.modalities import Bernoulli, Laplace, Normal, Vector
from mmgen_jax.types import Batch
from mmgen_jax.vae import MVTCAE, VAE, MixtureOfProducts, MoPoE, ProductOfExperts
from mmgen_jax.vae.fusion import product
from mmgen_jax.vae.latent import Gaussian, Noise
from mmgen_jax.vae.likelihood import log_weights, proposal

LIKELIHOODS = {"normal": Normal, "laplace": Laplace}
HEADS = ("mu", "style_mu", "logvar", "style_logvar")  # the order of the two halves of an encoder's output


class Hidden(nn.Module):
    """The reference's hidden layer: tanh(x W + b)."""

    width: int

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(self.width, name="hidden", param_dtype=x.dtype)(x))


class Output(nn.Module):
    """The reference's decoder: one hidden layer and a linear one."""

    width: int
    outputs: int

    @nn.compact
    def __call__(self, z):
        return nn.Dense(self.outputs, name="out", param_dtype=z.dtype)(Hidden(self.width, name="hidden_layer")(z))


class Case:
    """One file: the model it describes, its parameters in our layout, its data and its noise."""

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.file = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.file["meta"]))
        self.hp = self.meta["hp"]
        self.names = [m["name"] for m in self.meta["modalities"]]
        self.private = self.hp.get("private") or {}

    def unpack(self, group: str) -> dict[str, np.ndarray]:
        out, i = {}, 0
        for name, shape in self.meta["layout"][group]:
            n = int(np.prod(shape))
            out[name] = self.file[group][i : i + n].reshape(shape)
            i += n
        return out

    def params(self, flat: dict[str, np.ndarray]) -> dict:
        def head(module: str, leaf: str) -> np.ndarray:
            keys = [f"{module}.{h}.{leaf}" for h in HEADS]
            return np.concatenate([flat[k] for k in keys if k in flat], axis=-1)

        def layer(module: str) -> dict:
            return {leaf: flat[f"{module}.{leaf}"] for leaf in ("kernel", "bias")}

        encoders = {
            m: {
                "encoder": {"hidden": layer(f"encoders.{m}.hidden")},
                "Dense_0": {leaf: head(f"encoders.{m}", leaf) for leaf in ("kernel", "bias")},
            }
            for m in self.names
        }
        decoders = {
            m: {"hidden_layer": {"hidden": layer(f"decoders.{m}.hidden")}, "out": layer(f"decoders.{m}.out")}
            for m in self.names
        }
        return {"encoders": encoders, "decoders": decoders, "fusion": {}}

    def modality(self, m: dict) -> Vector:
        likelihood = LIKELIHOODS[m["dist"]](m["scale"]) if m["dist"] in LIKELIHOODS else Bernoulli()
        width = self.hp["hidden"]
        return Vector(m["dim"], likelihood=likelihood, encoder=Hidden(width), decoder=Output(width, m["dim"]))

    def model(self, eps: float) -> VAE:
        if self.meta["model"] == "MVTCAE":
            fusion = ProductOfExperts(eps=eps)
            objective = MVTCAE(alpha=self.hp["alpha"], beta=self.hp["beta"], fusion=fusion)
        else:
            subsets = tuple(tuple(s.split("_")) for s in self.meta["subsets"])
            fusion = MixtureOfProducts(subsets=subsets, eps=eps)
            objective = MoPoE(beta=self.hp["beta"], beta_private=self.hp["beta_style"], fusion=fusion)
        return VAE(
            modalities={m["name"]: self.modality(m) for m in self.meta["modalities"]},
            latent=self.hp["latent_dim"],
            private=self.private,
            weights=self.hp["rescale"],
            objective=objective,
            dtype="float64",
        )

    def batch(self) -> Batch:
        ones = np.ones(self.meta["batch"], bool)
        present = {m: self.file[f"mask/{m}"] if self.meta["masked"] else ones for m in self.names}
        return Batch({m: self.file[f"x/{m}"] for m in self.names}, present).masked()

    def noise(self) -> Noise:
        drawn = {n["key"].split("/")[-1]: self.file[n["key"]] for n in self.meta["noise"]}
        batch = self.meta["batch"]
        choice = np.zeros((1, batch))
        if "aux/selected" in self.file:  # the component is given, not drawn: no Gumbel noise can outbid 1e9
            choice = 1e9 * (np.arange(len(self.meta["subsets"]))[:, None] == self.file["aux/selected"])
        return Noise(z=drawn["z"], choice=choice, private={m: drawn[f"w_{m}"] for m in self.private})


@pytest.fixture
def case(golden_vae, request):
    name = golden_vae.stem
    if not name.startswith(("mvtcae", "mopoe")):
        pytest.skip(f"{name} is of a model that is not built, or tested elsewhere")
    with jax.enable_x64(True):
        yield Case(golden_vae)


def assert_close(actual, expected, rtol=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


def test_loss_terms_and_gradients(case):
    model, params = case.model(case.hp["poe_eps"]), case.params(case.unpack("w"))
    batch, noise = case.batch(), case.noise()

    def mean_loss(params):
        loss, terms = model.loss(params, batch, noise, jnp.zeros((), int))
        return loss.mean(), terms

    (loss, terms), grads = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(params)
    assert_close(loss, case.file["loss"])
    assert_close(terms["nll"], case.file["term/nll"])
    jax.tree.map(lambda g, e: assert_close(g, e, 1e-8), grads, case.params(case.unpack("g")))
    if case.meta["model"] == "MVTCAE":
        assert_close(terms["kl"], case.file["term/kl_prior"])
        assert_close(terms["kl_experts"], case.file["term/kl_uni"])
    else:
        kl = (case.file["aux/weights"] * case.file["term/kl_subset"]).sum(0)
        assert_close(terms["kl"], kl)
        if case.private:
            assert_close(terms["kl_private"], case.file["term/kl_style"].sum(0))
    exact, _ = case.model(0.0).loss(params, batch, noise, jnp.zeros((), int))
    assert_close(exact.mean(), case.file["loss_no_eps"])


def test_posteriors(case):
    model, params = case.model(case.hp["poe_eps"]), case.params(case.unpack("w"))
    inference = model.encode(params, case.batch())
    there = np.asarray(inference.present)[..., None]
    assert_close(inference.experts.mean, np.where(there, case.file["post/uni/mu"], 0))
    assert_close(inference.experts.log_var, np.where(there, case.file["post/uni/logvar"], 0))
    joint = inference.joint.components
    if case.meta["model"] == "MVTCAE":
        assert_close(joint.mean[0], case.file["post/joint/mu"])
        assert_close(joint.log_var[0], case.file["post/joint/logvar"])
        return
    assert_close(inference.joint.weights, case.file["aux/weights"])
    used = case.file["aux/weights"][..., None] > 0
    assert_close(np.where(used, joint.mean, 0), np.where(used, case.file["post/subset/mu"], 0))
    assert_close(np.where(used, joint.log_var, 0), np.where(used, case.file["post/subset/logvar"], 0))
    for m in case.private:
        there = case.batch().present[m][:, None]
        assert_close(inference.private[m].mean, np.where(there, case.file[f"post/style/{m}/mu"], 0))


def test_conditional_means(case):
    if "cond_subsets" not in case.meta:
        pytest.skip("the file has no conditional means")
    model, params, batch = case.model(case.hp["poe_eps"]), case.params(case.unpack("w")), case.batch()
    names = tuple(case.names)
    for i, subset in enumerate(case.meta["cond_subsets"]):
        given = {m: np.full(case.meta["batch"], m in subset.split("_")) for m in names}
        inference = model.encode(params, Batch(batch.values, given).masked())
        fusion = model.objective.fusion
        mean = fusion.conditional({}, inference.experts, inference.present, names).components.mean[0]
        if case.meta["model"] == "MoPoE" and all(m in subset.split("_") for m in names):
            mean = inference.joint.components.mean.mean(0)  # the reference averages the components there
        assert_close(mean, case.file["cond/z"][i])


def test_importance_sampled_likelihood(case):
    if "nll/value" not in case.file:
        pytest.skip("the file has no likelihood")
    model, params, batch = case.model(case.hp["poe_eps"]), case.params(case.unpack("w")), case.batch()
    inference = proposal(model, params, batch)

    def one(z, private):
        return log_weights(model, params, batch, inference, Noise(z, np.zeros((1, len(batch))), private))

    private = {m: case.file[f"nll/noise_w_{m}"] for m in case.private}
    weights = jax.jit(jax.vmap(one))(case.file["nll/noise_z"], private)
    log_mean = jax.nn.logsumexp(weights, axis=0) - np.log(int(case.file["nll/K"]))
    assert_close(-log_mean.sum(), case.file["nll/value"])


def test_primitives(golden_vae):
    if golden_vae.stem != "primitives":
        pytest.skip("not the file of primitives")
    with jax.enable_x64(True):
        with np.load(golden_vae) as f:
            file = {key: f[key] for key in f.files}
        experts = Gaussian(jnp.asarray(file["mus"]), jnp.asarray(file["logvars"]))
        everywhere = np.ones(file["mus"].shape[:-1], bool)
        for key, eps in (("poe_eps", 1e-8), ("poe", 0.0)):
            q = product(experts, everywhere, eps=eps)
            assert_close(q.mean, file[f"{key}/mu"])
            assert_close(q.log_var, file[f"{key}/logvar"])
        first, second = (jax.tree.map(lambda x, i=i: x[i], experts) for i in (0, 1))
        assert_close(first.kl(second), file["kl"])
