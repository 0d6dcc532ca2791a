"""Inception v3 by its published size and shapes, and its parts by closed forms on small pictures."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES, data

from mmgen_jax.evals import Inception, inception
from mmgen_jax.evals.pretrained import Pretrained, shapes

PICTURE = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)


def test_the_published_number_of_parameters():
    """That of torchvision without its auxiliary classifier is 23,834,568; of Keras, with statistics, 23,851,784."""
    found = shapes(inception.network, PICTURE)
    learned = {name: math.prod(shape) for name, shape in found.items() if "running" not in name}
    eight_more_classes = 8 * 2049
    assert sum(learned.values()) == 23_834_568 + eight_more_classes
    scales = sum(n for name, n in learned.items() if name.endswith("bn.weight"))  # Keras has none
    assert sum(map(math.prod, found.values())) - scales == 23_851_784 + eight_more_classes
    assert sum(name.endswith("conv.weight") for name in found) == 94
    assert found["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert found["Mixed_6e.branch7x7_2.conv.weight"] == (192, 192, 1, 7)


def test_the_published_shapes():
    """Table 1 of the paper, from 35 by 35 to 8 by 8."""
    x, found = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32), []

    def blocks(x):
        get = lambda name, *shape: jnp.zeros(shape)  # noqa: E731
        x = inception.applied(get, "", inception.STEM, x)
        for branches in inception.MIXED.values():
            found.append(x.shape[1:])
            x = jnp.concatenate([inception.applied(get, "", branch, x) for branch in branches], axis=-1)
        return x

    assert jax.eval_shape(blocks, x).shape == (2, 8, 8, 2048)
    assert found == [
        (35, 35, 192), (35, 35, 256), (35, 35, 288), (35, 35, 288), *[(17, 17, 768)] * 5, (8, 8, 1280), (8, 8, 2048),
    ]  # fmt: skip
    weights = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes(inception.network, PICTURE).items()}
    clips = jax.ShapeDtypeStruct((3, 2, 28, 28, 1), jnp.float32)
    outputs = jax.eval_shape(inception.look, weights, clips)
    assert {name: y.shape for name, y in outputs.items()} == {"features": (3, 2048), "logits": (3, 1008)}


def test_a_mean_does_not_count_what_lies_outside():
    x = np.arange(9.0, dtype=np.float32).reshape(1, 3, 3, 1)
    mean = inception.pooled("mean", jnp.asarray(x))[0, :, :, 0]
    np.testing.assert_allclose(mean[0], [2, 2.5, 3])  # of 4, 6 and 4
    np.testing.assert_allclose(mean[1, 1], 4)
    least = -inception.pooled("max", -jnp.asarray(x))[0, :, :, 0]
    np.testing.assert_array_equal(least, [[0, 0, 1], [0, 0, 1], [3, 3, 4]])
    assert inception.pooled("max, halved", jnp.zeros((1, 35, 35, 1))).shape == (1, 17, 17, 1)


def test_a_convolution_is_normalised_by_fixed_statistics():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype(np.float32)
    weights = {
        "a.conv.weight": np.array([[1, 2], [-1, 0], [3, 1]], np.float32)[:, :, None, None],
        "a.bn.running_mean": np.array([0.1, 0.2, 0.3], np.float32),
        "a.bn.running_var": np.array([1.0, 4.0, 0.25], np.float32),
        "a.bn.weight": np.array([1.0, 2.0, 3.0], np.float32),
        "a.bn.bias": np.array([0.5, 0.0, -0.5], np.float32),
    }
    found = inception.unit(lambda name, *shape: weights[name], "", inception.conv("a", 3), x)
    mean, variance, scale, bias = (weights[f"a.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    expected = (x @ weights["a.conv.weight"][:, :, 0, 0].T - mean) * scale / np.sqrt(variance + 1e-3) + bias
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_a_file_of_its_weights_makes_an_extractor(tmp_path):
    world, path = data(tmp_path / "judges"), tmp_path / "w.npz"
    found = shapes(inception.network, PICTURE)
    arrays = {name: np.broadcast_to(np.float16(0), shape) for name, shape in found.items()}
    np.savez_compressed(path, **arrays)
    judge = Inception(str(path)).fit("picture", MODALITIES["picture"], world, "")
    assert isinstance(judge, Pretrained) and judge.weights["fc.bias"].dtype == jnp.float32
    (stamped,) = (tmp_path / "judges").glob("picture-inception-v3-*.json")
    assert '"version": "1"' in stamped.read_text()
    np.savez(path, **{"Conv2d_1a_3x3.conv.weight": np.zeros((32, 3, 3, 2), np.float32)})
    with pytest.raises(ValueError, match=r"Conv2d_1a_3x3.conv.weight has the shape \(32, 3, 3, 2\), but must have"):
        Inception(str(path)).fit("picture", MODALITIES["picture"], world, "")
    with pytest.raises(ValueError, match="Inception looks at pictures and clips"):
        Inception(str(path)).fit("text", MODALITIES["text"], world, "")
