"""Likelihoods as an evaluator reports them: against closed forms, for every family, and refused where there is none."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evals_fakes import MODALITIES as SEEN
from evals_fakes import Model as Fake
from flax.core import FrozenDict

from mmgen_jax.config import Experiment, from_json, to_json
from mmgen_jax.data import Digits
from mmgen_jax.diffusion import EDM, Flow, KarrasGrid
from mmgen_jax.evals import Likelihood
from mmgen_jax.evals.intervals import Z, mean_interval, ratio_interval
from mmgen_jax.evals.likelihood import questions
from mmgen_jax.gan import GAN
from mmgen_jax.modalities import Label, Normal, Text, Vector, Wordlist
from mmgen_jax.modalities.given import chained
from mmgen_jax.tokens import FSQ, Tokenizer, Tokens
from mmgen_jax.types import Batch, Estimate, EvalData
from mmgen_jax.vae import CVAE, VAE

KEY, RHO = jax.random.key(0), 0.8
PAIR = FrozenDict({"a": Vector(1, likelihood=Normal(1.0)), "b": Vector(1, likelihood=Normal(1.0))})


def log_normal(x, mean, variance):
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(2 * np.pi * variance)


@dataclasses.dataclass(frozen=True)
class Gaussians:
    """Two normal numbers of correlation `RHO`; each estimate is said to have an error of 0.3."""

    modalities: FrozenDict = PAIR

    def log_likelihood(self, variables, batch, key, of, draws=None):
        def score(batch, name):
            (other,) = set(PAIR) - {name}
            x, y, known = batch.values[name][:, 0], batch.values[other][:, 0], batch.present[other]
            log_p = log_normal(x, jnp.where(known, RHO * y, 0), jnp.where(known, 1 - RHO**2, 1))
            return Estimate(jnp.where(batch.present[name], log_p, 0), jnp.full(len(batch), 0.3))

        return chained(self.modalities, batch, of, score)


def pairs(n, tmp_path, missing=0):
    x = np.random.default_rng(0).multivariate_normal([0, 0], [[1, RHO], [RHO, 1]], n).astype(np.float32)
    there = {"a": np.ones(n, bool), "b": np.arange(n) >= missing}
    split = Batch({"a": x[:, :1], "b": x[:, 1:], "label": np.zeros(n, np.int32)}, there | {"label": np.ones(n, bool)})
    return EvalData(split, split, tmp_path)


def test_of_two_gaussians(tmp_path):
    data = pairs(300, tmp_path, missing=20)
    values = Likelihood(limit=1000)(Gaussians(), {}, data, KEY)
    names = ("a+b", "a", "b", "b->a", "a->b")
    ends = ("", "/low", "/high", "/error")
    expected = {f"nll/{name}{end}" for name in names for end in ends}
    assert set(values) == expected | {f"bits/{name}{end}" for name in names[1:] for end in ends}
    a, b = (data.test.values[name][:, 0].astype(np.float64) for name in "ab")
    alone, given = -log_normal(a, 0, 1), -log_normal(b[20:], RHO * a[20:], 1 - RHO**2)
    assert values["nll/a"] == pytest.approx(float(alone.mean()), rel=1e-5)
    assert values["nll/a->b"] == pytest.approx(float(given.mean()), rel=1e-5)
    assert values["nll/a+b"] == pytest.approx(float((alone[20:] + given).mean()), rel=1e-5)
    assert (values["nll/a/low"], values["nll/a/high"]) == pytest.approx(mean_interval(np.asarray(alone)), rel=1e-4)
    assert values["nll/a/error"] == pytest.approx(0.3 / math.sqrt(300))
    assert values["nll/a+b/error"] == pytest.approx(0.3 * math.sqrt(2 / 280))  # two terms, independent of one another
    for end in ("", "/low", "/high", "/error"):
        assert values[f"bits/b{end}"] == pytest.approx(values[f"nll/b{end}"] / math.log(2))


def test_bits_of_texts_are_for_each_symbol_that_is_said():
    x, d = np.array([3.0, 8, 1]), np.array([1, 4, 1])
    low, high = ratio_interval(x, d)
    assert (low + high) / 2 == pytest.approx(2)
    spread = np.std([3 - 2, 8 - 8, 1 - 2], ddof=1) / 2 / math.sqrt(3)  # the mean of d is 2
    assert high - low == pytest.approx(2 * Z * spread)
    assert ratio_interval(x, np.ones(3)) == pytest.approx(mean_interval(x))


@dataclasses.dataclass(frozen=True)
class Slope:
    """A density e^x of any picture, and texts whose every symbol is said with probability 1/4."""

    modalities: FrozenDict = SEEN

    def log_likelihood(self, variables, batch, key, of, draws=None):
        def score(batch, name):
            x = batch.values[name].reshape(len(batch), -1)
            log_p = x.sum(1) if name == "picture" else -math.log(4) * (x != 0).sum(1)
            return Estimate(log_p, jnp.zeros(len(batch)))

        return chained(self.modalities, batch, of, score)


def test_pixels_of_some_levels_have_probabilities(tmp_path):
    n, rng = 400, np.random.default_rng(1)
    texts = [SEEN["text"].encode("ant" if i % 2 else "an elk") for i in range(n)]
    values = {"picture": rng.integers(0, 5, (n, 6, 6, 1)) / np.float32(4), "text": np.stack(texts)}
    split = Batch(values | {"label": np.ones(n, np.int32)}, dict.fromkeys(SEEN, np.ones(n, bool)))
    data = EvalData(split, split, tmp_path)
    as_density, of_cells = (Likelihood(levels=levels)(Slope(), {}, data, KEY) for levels in ({}, {"picture": 5}))
    mean = values["picture"].mean(dtype=np.float64)
    assert as_density["bits/picture"] == pytest.approx(-mean / math.log(2), rel=1e-5)
    assert as_density["bits/text"] == of_cells["bits/text"] == pytest.approx(2, rel=1e-6)  # for each, padding or none
    found = math.log2(4) - mean / math.log(2)  # a cell is a quarter wide, and u is 0 in the mean
    assert of_cells["bits/picture"] == pytest.approx(found, abs=0.01) and of_cells["bits/picture"] != found
    joint = of_cells["nll/picture+text+label"] - as_density["nll/picture+text+label"]
    assert joint == pytest.approx(36 * math.log(4), abs=0.4)


LABELLED = {"a": Vector(2, likelihood=Normal(1.0), features=4), "label": Label(3)}
WORDS = {"text": Text(4, vocabulary=Wordlist(("x", "y"))), "label": Label(3)}
CODER = Tokenizer(modalities={"a": LABELLED["a"]}, cells={"a": (2,)}, quantizer=FSQ((3, 2)))
FLOW = Flow(modalities={"a": LABELLED["a"]}, width=16, joint=1, depth=0, heads=2)
TOKENS = Tokens(modalities=WORDS, width=16, depth=1, heads=2)


def labelled(tmp_path, n=30):
    rng = np.random.default_rng(0)
    values = {"a": rng.random((n, 2), np.float32), "label": rng.integers(0, 3, n, np.int32)}
    values["text"] = np.stack([WORDS["text"].encode("x y" if i % 2 else "y") for i in range(n)])
    split = Batch(values, {name: np.ones(n, bool) for name in values})
    return EvalData(split, split, tmp_path)


def measured(model, tmp_path, **fields):
    params, stats = jax.jit(model.init)(KEY)
    return Likelihood(**fields)(model, {"params": params, **stats}, labelled(tmp_path), KEY)


def test_a_flow_that_moves_nothing_has_a_normal_density(tmp_path):
    values = measured(FLOW, tmp_path, draws=2)
    x = labelled(tmp_path).test.values["a"]
    centre, spread = LABELLED["a"].standard
    expected = -log_normal((x - centre) / spread, 0, 1).sum(1).mean() + 2 * math.log(spread)
    assert values["nll/a"] == pytest.approx(float(expected), rel=1e-4)
    assert {name.partition("/")[2].partition("/")[0] for name in values} == {"a"}  # one question, asked once


def test_of_a_vae_the_joint_is_marginal_and_conditional(tmp_path):
    values = measured(VAE(modalities=LABELLED, latent=1), tmp_path, draws=100)
    assert values["nll/a+label"] == pytest.approx(values["nll/a"] + values["nll/a->label"], rel=0.03)
    assert 0 < values["nll/a->label/error"] < 0.1


def test_tokens_say_labels_and_texts_and_leave_codes_out(tmp_path):
    values = measured(TOKENS, tmp_path)
    assert values["nll/text/error"] == 0
    assert values["nll/text+label"] == pytest.approx(values["nll/text"] + values["nll/text->label"], rel=1e-5)
    assert values["nll/text"] == pytest.approx(values["bits/text"] * math.log(2) * 2.5, rel=1e-5)  # 2 or 3 with the end
    assert questions(Tokens(modalities=LABELLED, first={"a": CODER}, width=16, heads=2)) == [
        ((), ("label",)),
        (("a",), ("label",)),
    ]


def test_what_can_only_be_given_is_given():
    assert questions(CVAE(modalities=LABELLED, target="a", latent=1)) == [(("label",), ("a",))]


def test_it_is_refused_when_the_run_is_made():
    def run(model, evaluator):
        return Experiment(model=model, data=Digits(), steps=1, evaluators=(evaluator,))

    with pytest.raises(
        ValueError, match=r"^Likelihood needs a model with a method log_likelihood\(\), which GAN has n"
    ):
        run(GAN(modalities=LABELLED), Likelihood())
    with pytest.raises(ValueError, match=r"^Likelihood needs .* which Model has not"):
        Likelihood()(Fake(), {}, None, KEY)
    with pytest.raises(ValueError, match=r"knows \['a'\] by their codes alone"):
        run(Tokens(modalities={"a": LABELLED["a"]}, first={"a": CODER}, width=16, heads=2), Likelihood())
    with pytest.raises(ValueError, match=r"levels names \['label'\], but the model has a density of \['a'\] only"):
        run(FLOW, Likelihood(levels={"label": 3}))
    good = run(FLOW, Likelihood(levels={"a": 256}))
    assert from_json(to_json(good)) == good


@pytest.mark.parametrize("fields", [{"limit": 0}, {"draws": 0}, {"levels": {"a": 1}}])
def test_a_field_outside_its_range_is_refused(fields):
    with pytest.raises(ValueError, match=r"Likelihood: \w+(\['a'\])? must be at least \d, not \d"):
        Likelihood(**fields)


def test_a_path_without_pure_noise_is_refused(tmp_path):
    with pytest.raises(ValueError, match="path is EDM"):
        measured(dataclasses.replace(FLOW, path=EDM(), grid=KarrasGrid()), tmp_path)
