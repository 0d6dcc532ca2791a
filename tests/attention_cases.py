"""What the tests of attention and diffusion transformers share: reference numbers, and weights from PyTorch."""

import json

import jax
import numpy as np
import pytest

PRECISIONS = pytest.mark.parametrize("precision", ["float64", "float32"])


class Case:
    """A file of reference numbers. Real arrays come out in the precision asked for."""

    def __init__(self, path, precision="float64"):
        with np.load(path) as file:
            self.arrays = dict(file)
        self.meta, self.precision = json.loads(str(self.arrays.pop("meta"))), precision
        self.settings = self.meta.get("settings", {})

    def __contains__(self, key):
        return key in self.arrays

    def __getitem__(self, key):
        array = self.arrays[key]
        return array.astype(self.precision) if array.dtype.kind == "f" else array

    def under(self, prefix):
        return {key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)}


def of_files(*prefixes):
    """The `reads` of a test file that is about these files."""
    return lambda path: path.stem.startswith(prefixes) and not path.stem.endswith("_weights")


def assert_near(actual, expected, precision, exact=1e-9, single=1e-5):
    """Within `exact` in float64, within `single` of the largest number in float32."""
    assert np.shape(actual) == np.shape(expected) and actual.dtype == precision
    tolerance = exact if precision == "float64" else single * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def precise(precision):
    return jax.enable_x64(precision == "float64")


def dense(w, name):
    """PyTorch keeps [out, in]."""
    return {"kernel": w[f"{name}.weight"].T, "bias": w[f"{name}.bias"]}


def merged(layers, heads):
    """Layers from D to heads x d side by side, as one from D to [layers, heads, d]."""
    kernel, bias = (np.stack([layer[leaf] for layer in layers], axis=-2) for leaf in ("kernel", "bias"))
    split = (len(layers), heads, kernel.shape[-1] // heads)
    return {"kernel": kernel.reshape(-1, *split), "bias": bias.reshape(split)}


def of_heads(layer, heads):
    """A layer from heads x d to D, as one from [heads, d]."""
    return layer | {"kernel": layer["kernel"].reshape(heads, -1, layer["bias"].size)}


def patches(w, name):
    """A convolution [D, C, p, q] as a matrix from patches flattened in the order (p, q, C)."""
    kernel = w[f"{name}.weight"]
    return {"kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)), "bias": w[f"{name}.bias"]}


def last(x):
    """[B, C, H, W] -> [B, H, W, C]."""
    return x.transpose(0, 2, 3, 1)


def perturbed(params, seed=0):
    """Every weight moved by noise: nothing is zero any more."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)
