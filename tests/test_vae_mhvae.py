"""MHVAE against the numbers of a reference implementation, and what its hierarchy must do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import Case, Hidden, assert_close, assert_gradients, decoder, encoder, layer, of_models

from mmgen_jax.modalities import Vector
from mmgen_jax.types import Batch
from mmgen_jax.vae.fusion import subsets_of
from mmgen_jax.vae.mhvae import MHVAE, Noise
from mmgen_jax.vae.networks import Networks

STEP = np.zeros((), np.int32)


def mhvae(case, eps=None) -> MHVAE:
    return MHVAE(
        modalities=case.modalities(),
        weights=case.hp["rescale"],
        levels=tuple(case.hp["level_dims"]),
        beta=case.hp["beta"],
        shared_posterior=case.hp["shared_posterior"],
        eps=case.hp["poe_eps"] if eps is None else eps,
        features=case.hp["hidden"],
        block=Hidden(case.hp["hidden"]),
        dtype="float64",
    )


def params(case, flat, head=np.eye) -> dict:
    """The reference's encoders end in their hidden layer: the linear layer after ours is `head`."""
    below = range(1, len(case.hp["level_dims"]))

    def hidden(module):
        return {"hidden": layer(flat, f"{module}.hidden")}

    def features(module):
        linear = head(case.hp["hidden"])
        return {"encoder": hidden(module), "Dense_0": {"kernel": linear, "bias": 0 * linear[0]}}

    def posterior(module):
        return {f"level_{i}": encoder(flat, f"{module}.{i - 1}") for i in below}

    each = {m: f"posterior_blocks.{m}" for m in case.names}
    return {
        "encoders": {m: features(f"encoders.{m}") for m in case.names},
        "decoders": {m: decoder(flat, f"decoders.{m}") for m in case.names},
        "bottom_up": {
            m: {f"level_{i}": hidden(f"bottom_up_blocks.{m}.{i - 2}") for i in below[1:]} for m in case.names
        },
        "top": {m: encoder(flat, f"bottom_up_blocks.{m}.{len(below) - 1}") for m in case.names},
        "top_down": {f"level_{i}": hidden(f"top_down_blocks.{i - 1}") for i in below},
        "prior": {f"level_{i}": encoder(flat, f"prior_blocks.{i - 1}") for i in below},
        "posterior": {
            n: posterior(module)
            for n, module in ({"all": "posterior_blocks"} if case.hp["shared_posterior"] else each).items()
        },
    }


def noise(case) -> Noise:
    drawn, levels = case.noise(), range(1, len(case.hp["level_dims"]) + 1)
    sets = ["_".join(subset) for subset in subsets_of(tuple(case.names))]
    return Noise(tuple(np.stack([drawn[f"{subset}/z{level}"] for subset in sets]) for level in levels))


def order(case) -> list[int]:
    """Where the sets of the file stand among ours."""
    sets = ["_".join(subset) for subset in subsets_of(tuple(case.names))]
    return [sets.index(subset) for subset in case.meta["subsets"]]


reads = of_models("MHVAE")


@pytest.fixture
def case(golden_vae):
    with jax.enable_x64(True):
        yield Case(golden_vae)


def test_loss_and_gradients(case):
    weights, data, drawn = params(case, case.unpack("w")), case.batch(), noise(case)

    def mean_loss(weights, model):
        return model.loss(weights, data, drawn, STEP)[0].mean()

    loss, grads = jax.jit(jax.value_and_grad(mean_loss), static_argnums=1)(weights, mhvae(case))
    assert_close(loss, case.expected_loss())
    unknown = params(case, case.expected_gradients(), lambda n: np.full((n, n), np.nan))
    jax.tree.map(assert_gradients, grads, unknown)
    scale = case.size if case.meta["reduction"] == "sum" else 1
    assert_close(mean_loss(weights, mhvae(case, eps=0.0)), case.file["loss_no_eps"] / scale)


def test_terms_and_posteriors(case):
    model, weights, data, drawn = mhvae(case), params(case, case.unpack("w")), case.batch(), noise(case)
    found, kept = model.infer_sets(weights, data, drawn), np.array(order(case))
    networks = Networks(model, weights, data, model.weights_at(STEP))
    nll = -networks.log_probs(found.z[0], {})
    assert_close(nll.swapaxes(0, 1)[kept], case.file["term/nll"])
    terms = model.loss(weights, data, drawn, STEP)[1]
    assert_close(terms["nll"], case.file["term/nll"].mean(0))
    for level, (q, p) in enumerate(zip(found.q, found.p, strict=True), 1):
        assert_close(q.kl(p)[kept], case.file[f"term/kl_z{level}"])
        assert_close(terms[f"kl_{level}"], case.file[f"term/kl_z{level}"].mean(0))
        assert_close(q.mean[kept], case.file[f"post/z{level}/mu"])
        assert_close(q.log_var[kept], case.file[f"post/z{level}/logvar"])


def test_conditional_means(case):
    if "cond/z1" not in case.file:
        pytest.skip("the file has no conditional means")
    model, weights, data = mhvae(case), params(case, case.unpack("w")), case.batch()
    given = {"_".join(subset): subset for subset in subsets_of(tuple(case.names))}
    nothing = tuple(np.zeros((case.size, size)) for size in model.levels)
    for i, subset in enumerate(case.meta["cond_subsets"]):
        part = Batch(data.values, {m: np.full(case.size, m in given[subset]) for m in case.names}).masked()
        used = np.stack([part.present[m] for m in case.names])
        found = model.infer(weights, model.encode(weights, part), used, nothing)
        for level, z in enumerate(found.z, 1):
            assert_close(z, case.file[f"cond/z{level}"][i])


SMALL = {"a": Vector(3, features=4), "b": Vector(2, features=4)}


def small(**fields) -> MHVAE:
    return MHVAE(modalities=SMALL, **{"levels": (4, 3, 2), "features": 5, **fields})


def batch(n=4):
    rng = np.random.default_rng(0)
    values = {m: rng.normal(size=(n, *v.shape)).astype(np.float32) for m, v in SMALL.items()}
    return Batch(values, {m: np.ones(n, bool) for m in SMALL})


def normal(model, lead):
    return tuple(jax.random.normal(jax.random.key(i), (*lead, size)) for i, size in enumerate(model.levels))


@pytest.mark.parametrize("levels", [(4,), (4, 3), (4, 3, 2, 2)], ids=str)
def test_all_sets_at_once_are_the_sets_one_by_one(levels):
    model = small(levels=levels)
    params = jax.jit(model.init)(jax.random.key(0))[0]
    data, drawn = batch(), normal(model, (3, 4))
    data.present["b"][1] = False
    together = model.infer_sets(params, data.masked(), Noise(drawn))
    seen = model.encode(params, data.masked())
    for i, subset in enumerate(subsets_of(tuple(SMALL))):
        used = jnp.stack([jnp.asarray(data.present[m]) & (m in subset) for m in SMALL])
        alone = model.infer(params, seen, used, tuple(x[i] for x in drawn))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-6), together, alone)


def test_given_nothing_the_posterior_is_the_prior_all_the_way_down():
    model = small()
    params = jax.jit(model.init)(jax.random.key(0))[0]
    seen = model.encode(params, batch())
    found = model.infer(params, seen, jnp.zeros((2, 4), bool), normal(model, (4,)))
    for q, p in zip(found.q, found.p, strict=True):
        np.testing.assert_allclose(q.mean, p.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(q.log_var, p.log_var, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.p[-1].mean, 0)
    assert float(jnp.abs(found.p[0].mean).min()) > 0  # not N(0, I): it is what the level above says


def test_what_is_made_of_nothing_comes_down_the_whole_hierarchy():
    model = small()
    params = jax.jit(model.init)(jax.random.key(0))[0]
    before = model.sample({"params": params}, jax.random.key(1), 2)
    for part in ("top_down", "prior"):
        for level in ("level_1", "level_2"):
            moved = {**params, part: {**params[part], level: jax.tree.map(lambda x: x + 0.5, params[part][level])}}
            after = model.sample({"params": moved}, jax.random.key(1), 2)
            assert all(np.abs(after[m] - before[m]).max() > 1e-4 for m in SMALL), (part, level)


def test_a_block_of_another_width_is_refused():
    with pytest.raises(ValueError, match="block returns 7 features, but features is 5"):
        small(block=nn.Dense(7)).init(jax.random.key(0))
