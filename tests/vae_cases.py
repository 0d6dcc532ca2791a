"""Golden cases of the VAE family: one .npz of reference numbers, and the networks that they were computed with."""

import json
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities import Bernoulli, Laplace, Normal, Vector
from mmgen_jax.types import Batch

LIKELIHOODS = {"normal": Normal, "laplace": Laplace}
HEADS = ("mu", "style_mu", "logvar", "style_logvar")  # the order of the two halves of an encoder's output


def random_batch(modalities, n=4, seed=0, present=1.0) -> Batch:
    """Made-up values of any modalities, each present with that probability."""
    rng = np.random.default_rng(seed)

    def values(m):
        if m.dtype == np.float32:
            return rng.random((n, *m.shape)).astype(np.float32)
        return rng.integers(2 if m.shape else 0, 3, (n, *m.shape)).astype(np.int32)

    there = {name: rng.random(n) < present for name in modalities}
    return Batch({name: values(m) for name, m in modalities.items()}, there)


def of_models(*names):
    """Whether a file is of one of these models: what a test file's `reads` may be."""
    return lambda path: Case(path).model_name in names


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
    """One file: what it holds, its data, and the parts of any model's parameters."""

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.file = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.file["meta"]))
        self.model_name = self.meta["model"]
        self.hp, self.size = self.meta.get("hp"), self.meta.get("batch")  # none in the file of primitives
        self.names = [m["name"] for m in self.meta.get("modalities", ())]

    def unpack(self, group: str) -> dict[str, np.ndarray]:
        """The arrays of "w" (parameters), "g" (gradients) or "buf" by name."""
        out, i = {}, 0
        for name, shape in self.meta["layout"].get(group, []):
            n = int(np.prod(shape))
            out[name] = self.file[group][i : i + n].reshape(shape)
            i += n
        return out

    def modality(self, m: dict) -> Vector:
        likelihood = LIKELIHOODS[m["dist"]](m["scale"]) if m["dist"] in LIKELIHOODS else Bernoulli()
        width = self.hp["hidden"]
        return Vector(m["dim"], likelihood=likelihood, encoder=Hidden(width), decoder=Output(width, m["dim"]))

    def modalities(self) -> dict[str, Vector]:
        return {m["name"]: self.modality(m) for m in self.meta["modalities"]}

    def batch(self) -> Batch:
        ones = np.ones(self.size, bool)
        present = {m: self.file[f"mask/{m}"] if self.meta["masked"] else ones for m in self.names}
        return Batch({m: self.file[f"x/{m}"] for m in self.names}, present).masked()

    def there(self) -> np.ndarray:
        """What is present, bool [M, B]."""
        return np.stack([np.asarray(self.batch().present[m]) for m in self.names])

    def noise(self) -> dict[str, np.ndarray]:
        """The drawn numbers by name, without their place in the order: {"z": ..., "a/w_b": ...}."""
        return {n["key"].split("/", 2)[2]: self.file[n["key"]] for n in self.meta["noise"]}

    def expected_loss(self) -> np.ndarray:
        """The mean over the batch, whatever the reference's reduction."""
        return self.file["loss"] / (self.size if self.meta["reduction"] == "sum" else 1)

    def expected_gradients(self) -> dict[str, np.ndarray]:
        """Those of the mean over the batch; nan for parameters that have none."""
        scale = self.size if self.meta["reduction"] == "sum" else 1
        nothing = {name: np.full(shape, np.nan) for name, shape in self.meta["layout"]["w"]}
        return nothing | {name: g / scale for name, g in self.unpack("g").items()}


def layer(flat: dict[str, np.ndarray], module: str) -> dict:
    """Kernel and bias of a Dense layer."""
    return {leaf: flat[f"{module}.{leaf}"] for leaf in ("kernel", "bias")}


def heads(flat: dict[str, np.ndarray], module: str) -> dict:
    """The heads of a module side by side, as one Dense layer."""

    def side_by_side(leaf: str) -> np.ndarray:
        return np.concatenate([flat[k] for h in HEADS if (k := f"{module}.{h}.{leaf}") in flat], axis=-1)

    return {leaf: side_by_side(leaf) for leaf in ("kernel", "bias")}


def encoder(flat: dict[str, np.ndarray], module: str) -> dict:
    """Parameters of `Vector(encoder=Hidden())`, whose head the modality adds."""
    return {"encoder": {"hidden": layer(flat, f"{module}.hidden")}, "Dense_0": heads(flat, module)}


def decoder(flat: dict[str, np.ndarray], module: str) -> dict:
    """Parameters of `Output()`."""
    return {"hidden_layer": {"hidden": layer(flat, f"{module}.hidden")}, "out": layer(flat, f"{module}.out")}


def assert_close(actual, expected, rtol=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


def assert_gradients(actual, expected, rtol=1e-8):
    """Equal wherever a gradient is expected (not nan)."""
    np.testing.assert_array_equal(np.isnan(actual), False)
    assert_close(np.where(np.isnan(expected), 0, actual), np.where(np.isnan(expected), 0, expected), rtol)
