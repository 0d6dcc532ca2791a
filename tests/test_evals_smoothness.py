"""Path lengths: closed forms, and those of models whose features are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import Model, data
from flax.core import FrozenDict

from mmgen_jax.evals import Smoothness, metrics
from mmgen_jax.evals.metrics.smoothness import trimmed
from mmgen_jax.gan import DCGAN, GAN
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.nn.ways import between
from mmgen_jax.types import Batch, EvalData
from mmgen_jax.vae import VAE


@dataclasses.dataclass(frozen=True)
class Values:
    """An extractor whose features are the values themselves."""

    def fit(self, name, modality, data, label):
        return self

    def features(self, x):
        return x.reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class Straight:
    """Between normal codes in a straight line; what is made is `scale` times the code."""

    scale: float = 3.0
    modalities: FrozenDict = FrozenDict({"vector": Vector(4), "label": Label(2)})

    def between(self, variables, key, n, shares):
        a, b = (jax.random.normal(k, (n, 4)) for k in jax.random.split(key))
        return {"vector": self.scale * (a + shares[:, None] * (b - a)), "label": jnp.zeros(n, int)}


def test_length_of_straight_ways_and_of_circles():
    a, b = np.random.default_rng(0).normal(size=(2, 100, 5))
    shares = np.linspace(0, 0.9, 100)
    length, error = metrics.path_length(lambda t: a + t[:, None] * (b - a), shares)
    squares = trimmed(((b - a) ** 2).sum(1))
    assert length == pytest.approx(squares.mean(), rel=1e-6)
    assert error == pytest.approx(squares.std(ddof=1) / np.sqrt(len(squares)), rel=1e-6)
    # On a circle of radius r the length of the way is r w, all along it.
    ends = jnp.array([2.0, 0.0]), 2 * jnp.array([np.cos(0.7), np.sin(0.7)])
    circle, _ = metrics.path_length(lambda t: between(*ends, jnp.asarray(t)), shares, step=1e-2)
    assert circle == pytest.approx((2 * 0.7) ** 2, rel=1e-3)


def test_the_ends_of_a_hundred_values_are_left_out():
    x = np.random.default_rng(0).permutation(201).astype(float)
    np.testing.assert_array_equal(np.sort(trimmed(x)), np.arange(2, 199))
    assert list(trimmed(np.array([5.0]))) == [5.0]


def test_what_cannot_be_walked_is_said(tmp_path):
    with pytest.raises(ValueError, match="there are 1 shares and a step of 0.0001, but must be 2 or more"):
        metrics.path_length(lambda t: t[:, None], np.zeros(1))
    for fields, message in (({"ways": 1}, "ways must be at least 2, not 1"), ({"step": 0}, "step must be above 0")):
        with pytest.raises(ValueError, match=message):
            Smoothness(**fields)
    with pytest.raises(ValueError, match=r"needs a model with a method between\(\), which Model has not"):
        Smoothness()(Model(), {}, data(tmp_path), jax.random.key(0))


def test_of_a_model(tmp_path):
    nothing = EvalData(Batch({}, {}), Batch({}, {}), tmp_path)
    values = Smoothness(ways=300, extractor=Values())(Straight(), {}, nothing, jax.random.key(0))
    assert set(values) == {"length/samples", *(f"length/vector{end}" for end in ("", "/low", "/high"))}
    # |b - a|^2 is twice chi-squared of 4 degrees, times the square of the scale; the tails weigh little.
    assert values["length/vector/low"] < 9 * 2 * 4 < values["length/vector/high"]
    longer = Smoothness(ways=300, step=1e-2, extractor=Values())(Straight(), {}, nothing, jax.random.key(0))
    assert longer["length/vector"] == pytest.approx(values["length/vector"], rel=2e-3)  # float32 suffices for 1e-4


PARTS = {"label": Label(4, features=4), "vector": Vector(3, features=4)}


@pytest.mark.parametrize(
    "model",
    [
        GAN(modalities=PARTS, noise=4, own=2, width=8, networks=DCGAN()),
        VAE(modalities=PARTS, latent=4, private={"vector": 2, "label": 1}),
    ],
    ids=["gan", "vae"],
)
def test_models_make_the_same_ways_again(model):
    params, stats = jax.jit(model.init)(jax.random.key(0))
    walk = jax.jit(model.between, static_argnums=2)
    variables = {"params": params, **stats}
    made = [walk(variables, jax.random.key(1), 3, jnp.asarray(t)) for t in ([0.0, 0.5, 1.0], [0.0, 0.6, 1.0])]
    assert made[0].keys() == PARTS.keys() and made[0]["vector"].shape == (3, 3)
    same = [np.allclose(*(m["vector"][i] for m in made), atol=1e-6) for i in range(3)]
    assert same == [True, False, True]
