"""Tokenizers: any shape becomes symbols and comes back, better after training; missing parts teach nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vae_cases import random_batch

from mmgen_jax.evals.codes import Codes
from mmgen_jax.evals.reconstruction import Reconstruction
from mmgen_jax.modalities import Audio, Image, Vector, Video
from mmgen_jax.nn.grid import GridDecoder, GridEncoder
from mmgen_jax.tokens.fsq import FSQ
from mmgen_jax.tokens.residual import Residual
from mmgen_jax.tokens.tokenizer import Tokenizer
from mmgen_jax.tokens.vq import VQ
from mmgen_jax.types import EvalData, TrainState

KEY = jax.random.key(0)
SMALL = {"widths": (4, 8), "blocks": 1}


def grid(make, shape, width=2, causal=False):
    return make(
        encoder=GridEncoder(width, **SMALL, parts=1, causal=causal), decoder=GridDecoder(shape, **SMALL, causal=causal)
    )


MODALITIES = {
    "audio": grid(functools.partial(Audio, 64, rate=64, mels=3, window=32, hop=8), (9, 3)),
    "image": grid(functools.partial(Image, 7, 6, 2), (7, 6, 2)),
    "vector": Vector(3, features=8),
    "video": grid(functools.partial(Video, 3, 4, 5, 1, fps=4, tubelet=(1, 2, 2)), (3, 4, 5, 1), causal=True),
}
CELLS = {"audio": (5,), "image": (4, 3), "vector": (2,), "video": (2, 2, 3)}
FEW = {name: MODALITIES[name] for name in ("vector",)}
MODELS = {
    "fsq": Tokenizer(modalities=MODALITIES, cells=CELLS, quantizer=FSQ((5, 3))),
    "residual": Tokenizer(modalities=FEW, cells={"vector": (2,)}, quantizer=Residual(VQ(8, 2), 2)),
}
TX = optax.adam(3e-3)


@functools.cache
def start(name):
    return jax.jit(lambda key: TrainState.create(MODELS[name], TX, key))(KEY)


@functools.cache
def step(name):
    return jax.jit(functools.partial(MODELS[name].step, TX))


@pytest.mark.parametrize("name", MODELS)
def test_any_shape_becomes_symbols_and_comes_back(name):
    model, variables = MODELS[name], start(name).variables
    for m, x in random_batch(model.modalities, 3).values.items():
        alone = model.part(variables, m)
        tokens = jax.jit(model.to_tokens, static_argnums=1)(alone, m, x)
        assert tokens.shape == (3, model.token_count(m)) == (3, len(model.places(m)))
        assert tokens.dtype == jnp.int32 and 0 <= tokens.min() and tokens.max() < model.quantizer.size
        assert jax.jit(model.from_tokens, static_argnums=1)(alone, m, tokens).shape == x.shape


def test_symbols_are_where_their_cells_are():
    places = MODELS["fsq"].places("image").reshape(4, 3, 4)  # second, row, column, index
    assert (np.diff(places[..., 1], axis=0) > 0).all() and (np.diff(places[..., 2], axis=1) > 0).all()
    assert (places[..., [0, 3]] == 0).all() and places[..., 1].max() < 7
    seconds = MODELS["fsq"].places("audio")[:, 0] / 25
    assert (np.diff(seconds) > 0).all() and 0 <= seconds[0] and seconds[-1] < 1.125  # frames at 0 to 1 and half a hop
    np.testing.assert_array_equal(MODELS["fsq"].places("vector")[:, 3], [0, 1])
    np.testing.assert_array_equal(MODELS["residual"].places("vector")[:, 3], [0, 0, 1, 1])


@pytest.mark.parametrize("name", MODELS)
def test_training_makes_reconstructions_better(name):
    modalities = MODELS[name].modalities
    state, batch = start(name), random_batch(modalities, 16, present=0.8)
    before = {k: float(v) for k, v in step(name)(state, batch, KEY)[1].items()}
    for i in range(80):
        state, metrics = step(name)(state, batch, jax.random.key(i))
    assert float(metrics["loss"]) < before["loss"]
    for m in modalities:
        assert float(metrics[f"nats/{m}"]) > before[f"nats/{m}"]
        assert float(metrics[f"use/{m}"]) > 0.2 and float(metrics[f"perplexity/{m}"]) > 1.2
    data = EvalData(batch, batch, None)
    errors = [Reconstruction()(MODELS[name], s.variables, data, KEY) for s in (start(name), state)]
    assert all(errors[1][k] < errors[0][k] for k in errors[0])
    found = Codes()(MODELS[name], state.variables, data, KEY)
    for m in modalities:
        assert 0 < found[f"codes/{m}_use"] <= 1
        assert 1 <= found[f"codes/{m}_perplexity"] <= found[f"codes/{m}_use"] * MODELS[name].quantizer.size + 1e-6


def test_what_is_not_present_teaches_nothing():
    """Neither networks nor codebooks, whatever stands there."""
    batch, there = random_batch(FEW, 6), np.arange(6) < 3
    hidden = [np.where(there[:, None], batch.values["vector"], junk).astype(np.float32) for junk in (0, np.nan)]
    batches = [batch.replace(values={"vector": x}, present={"vector": there}) for x in hidden]
    jax.tree.map(np.testing.assert_array_equal, *(step("residual")(start("residual"), b, KEY) for b in batches))


def test_devices_with_rows_of_their_own_learn_one_codebook():
    """That what is learned is the same on all devices, jax checks itself (out_specs); and they see all rows."""
    model = Tokenizer(modalities=FEW, cells={"vector": (2,)}, quantizer=VQ(4, 2, learned=True))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    batch = random_batch(FEW, 8)
    state = jax.jit(lambda key: TrainState.create(model, TX, key))(KEY)
    one = functools.partial(model.step, TX)
    each = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=(whole, rows, whole), out_specs=whole))
    after, metrics = each(state, batch, KEY)
    np.testing.assert_allclose(after.stats["quantizer"]["vector"]["count"], 8 * 2 / 4)
    np.testing.assert_allclose(metrics["loss"], jax.jit(one)(state, batch, KEY)[1]["loss"], rtol=1e-5)


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match=r"cells are of \['image'\], but must be of the modalities"):
        Tokenizer(modalities=MODALITIES, cells={"image": (4, 3)})
    one = {"vector": MODALITIES["vector"]}
    with pytest.raises(ValueError, match=r"cells\['vector'\] is \(0,\), but must be a tuple"):
        Tokenizer(modalities=one, cells={"vector": (0,)})
    with pytest.raises(ValueError, match=r"weights\['x'\] is 1.0, but names must be of \['vector'\]"):
        Tokenizer(modalities=one, cells={"vector": (1,)}, weights={"x": 1.0})
    with pytest.raises(ValueError, match="Codes needs a model with a method to_tokens"):
        Codes()(object(), {}, None, KEY)
