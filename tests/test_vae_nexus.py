"""Nexus against the numbers of a reference implementation, and what its joint level must and must not do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import Case, Hidden, assert_close, assert_gradients, decoder, encoder, layer, of_models

from mmgen_jax.modalities import Vector
from mmgen_jax.types import Batch
from mmgen_jax.vae.fusion import subsets_of
from mmgen_jax.vae.nexus import Nexus, Noise
from mmgen_jax.vae.schedules import Ramp


def nexus(case) -> Nexus:
    hp = case.hp

    def warm(beta):
        return Ramp(0.0, beta, hp["warmup"]) if hp["warmup"] else beta

    return Nexus(
        modalities=case.modalities(),
        weights=hp["rescale"],
        latent=hp["latent_dim"],
        private=hp["private"],
        message=hp["msg_dim"],
        betas={name: warm(beta) for name, beta in hp["bottom_betas"].items()},
        top_beta=warm(hp["top_beta"]),
        gammas=hp["gammas"],
        dropout=hp["dropout_rate"],
        adapt=tuple(hp["adapt"]),
        block=Hidden(hp["hidden"]),
        dtype="float64",
    )


def params(case, flat) -> dict:
    def linear(module):
        return {"encoder": {"hidden": layer(flat, f"{module}.hidden")}, "Dense_0": layer(flat, f"{module}.out")}

    return {
        "encoders": {m: encoder(flat, f"encoders.{m}") for m in case.names},
        "decoders": {m: decoder(flat, f"decoders.{m}") for m in case.names},
        "messages": {m: linear(f"top_encoders.{m}") for m in case.names},
        "joint": encoder(flat, "joint_encoder"),
        "predictions": {m: linear(f"top_decoders.{m}") for m in case.names},
    }


def noise(case) -> Noise:
    drawn = case.noise()
    bottom = {m: drawn[f"z_{m}"] for m in case.names}
    return Noise(z=drawn["z_top"], bottom=bottom, drop=case.file["aux/keep"].T.astype(float))


reads = of_models("Nexus")


@pytest.fixture
def case(golden_vae):
    with jax.enable_x64(True):
        yield Case(golden_vae)


def test_loss_and_gradients(case):
    model, weights, data, drawn = nexus(case), params(case, case.unpack("w")), case.batch(), noise(case)

    def mean_loss(weights):
        return model.loss(weights, data, drawn, jnp.asarray(case.hp["epoch"]))[0].mean()

    loss, grads = jax.jit(jax.value_and_grad(mean_loss))(weights)
    assert_close(loss, case.expected_loss())
    jax.tree.map(assert_gradients, grads, params(case, case.expected_gradients()))


def test_terms_and_posteriors(case):
    model, weights, data, drawn = nexus(case), params(case, case.unpack("w")), case.batch(), noise(case)
    terms = model.loss(weights, data, drawn, jnp.asarray(case.hp["epoch"]))[1]
    for ours, theirs in {"nll": "nll", "kl": "kl_bottom", "nll_top": "nll_top", "kl_top": "kl_top"}.items():
        assert_close(terms[ours], case.file[f"term/{theirs}"])
    codes = model.encode(weights, data)
    bottom = {m: q.at(drawn.bottom[m]) for m, q in codes.items()}
    kept = model.kept(case.there(), drawn.drop)
    np.testing.assert_array_equal(kept.T, case.file["aux/keep"])
    assert_close(model.gathered(weights, bottom, kept), case.file["term/message"])
    joint = model.joint(weights, bottom, kept)
    assert_close(joint.mean, case.file["post/joint/mu"])
    assert_close(joint.log_var, case.file["post/joint/logvar"])
    for i, m in enumerate(case.names):
        there = data.present[m]
        assert_close(codes[m].mean[there], case.file[f"post/uni/{m}/mu"][there])
        assert_close(codes[m].log_var[there], case.file[f"post/uni/{m}/logvar"][there])
        prediction = model.prediction(weights, m, joint.at(drawn.z), bottom[m], there)
        assert_close(jnp.exp(0.5 * prediction.log_var), np.full(bottom[m].shape, case.file["term/top_scale"][i]))


def test_conditional_means(case):
    if "cond/z" not in case.file:
        pytest.skip("the file has no conditional means")
    model, weights, data = nexus(case), params(case, case.unpack("w")), case.batch()
    given = {"_".join(subset): subset for subset in subsets_of(tuple(case.names))}
    for i, subset in enumerate(case.meta["cond_subsets"]):
        part = Batch(data.values, {m: np.full(case.size, m in given[subset]) for m in case.names}).masked()
        means = {m: q.mean for m, q in model.encode(weights, part).items()}
        used = np.stack([part.present[m] for m in case.names])
        assert_close(model.joint(weights, means, used).mean, case.file["cond/z"][i])


SMALL = {"a": Vector(3, features=4), "b": Vector(2, features=4), "c": Vector(4, features=4)}


def small(**fields) -> Nexus:
    return Nexus(modalities=SMALL, **{"latent": 3, "features": 5, "message": 2, **fields})


def test_dropped_messages_leave_one_of_those_present_and_all_sets_of_them_occur():
    present = jnp.array([[True], [False], [True]]) & jnp.ones((3, 4000), bool)
    drop = jax.random.uniform(jax.random.key(0), present.shape)
    kept = np.asarray(small(dropout=0.5).kept(present, drop))
    assert kept.any(0).all() and not kept[1].any()
    # both with 1/4; one alone with 1/4, and half of the 1/4 in which both would be dropped
    np.testing.assert_allclose(kept[[0, 2]].mean(1), 0.625, atol=0.03)
    np.testing.assert_allclose(kept[[0, 2]].all(0).mean(), 0.25, atol=0.03)
    np.testing.assert_array_equal(small(dropout=0.0).kept(present, drop), present)
    np.testing.assert_array_equal(small(dropout=1.0).kept(present, drop).sum(0), 1)
    nothing = jnp.zeros_like(present)
    assert not small(dropout=0.5).kept(nothing, drop).any()


def batch(n=4):
    rng = np.random.default_rng(0)
    values = {m: rng.normal(size=(n, *v.shape)).astype(np.float32) for m, v in SMALL.items()}
    return Batch(values, {m: np.ones(n, bool) for m in SMALL})


def test_bottom_codes_are_constants_of_the_joint_level():
    model = small()
    params = jax.jit(model.init)(jax.random.key(0))[0]

    def top(params):
        terms = model.loss(params, batch(), jax.random.key(1), jnp.zeros((), jnp.int32))[1]
        return (terms["nll_top"].sum(0) + terms["kl_top"]).mean()

    grads = jax.jit(jax.grad(top))(params)
    for part in ("encoders", "decoders"):
        jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), grads[part])
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads["predictions"]))


def test_the_adapted_scale_is_the_best_one_and_is_over_what_is_present():
    model = small(adapt=("a",))
    params = jax.jit(model.init)(jax.random.key(0))[0]
    z, code = (jax.random.normal(jax.random.key(i), (4, 3)) for i in (1, 2))
    present = jnp.array([True, True, False, True])
    q = model.prediction(params, "a", z, code, present)

    def nll(shift):
        return -jnp.where(present, dataclasses.replace(q, log_var=q.log_var + shift).log_prob(code), 0).sum()

    np.testing.assert_allclose(jax.grad(nll)(0.0), 0, atol=1e-5)
    other = model.prediction(params, "a", z, code.at[2].set(99.0), present)
    np.testing.assert_array_equal(other.log_var, q.log_var)
    nothing = model.prediction(params, "a", z, code, jnp.zeros(4, bool))
    np.testing.assert_array_equal(nothing.log_var, 0)
