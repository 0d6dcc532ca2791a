"""DiT: the numbers of a reference with the same weights, the published sizes, zero at first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import PRECISIONS, Case, assert_near, dense, last, of_files, of_heads, patches, precise

from mmgen_jax.diffusion.dit import PRESETS, DiT
from mmgen_jax.nn.dit import DiTBlock, TimeEmbed
from mmgen_jax.nn.embed import patch_positions, patchify
from mmgen_jax.nn.rope import place_features, time_features

reads = of_files("dit")


def block_params(w, i, heads):
    name = f"blocks.{i}"
    qkv = dense(w, f"{name}.attn.qkv")
    split = (3, heads, qkv["bias"].size // (3 * heads))
    return {
        "modulation": {"dense": dense(w, f"{name}.adaLN_modulation.1")},
        "qkv": {"kernel": qkv["kernel"].reshape(-1, *split), "bias": qkv["bias"].reshape(split)},
        "out": of_heads(dense(w, f"{name}.attn.proj"), heads),
        "feed_forward": {"dense_0": dense(w, f"{name}.mlp.fc1"), "dense_1": dense(w, f"{name}.mlp.fc2")},
    }


def dit_params(w, settings):
    blocks = [block_params(w, i, settings["heads"]) for i in range(settings["depth"])]
    final = "final_layer"
    return {
        "embed": patches(w, "x_embedder.proj"),
        "time": {"dense_0": dense(w, "t_embedder.mlp.0"), "dense_1": dense(w, "t_embedder.mlp.2")},
        "label": {"embedding": w["y_embedder.embedding_table.weight"]},
        "blocks": {"layers": {"stream": jax.tree.map(lambda *layers: np.stack(layers), *blocks)}},
        "head": {
            "modulation": {"dense": dense(w, f"{final}.adaLN_modulation.1")},
            "dense": dense(w, f"{final}.linear"),
        },
    }


def weights(path, case):
    return Case(path.parent.parent / case.meta["weights_file"], case.precision).under("w/")


def dit(case):
    s = case.settings
    return DiT(
        width=s["dim"], depth=s["depth"], heads=s["heads"], patch=s["patch"], classes=s["classes"],
        learn_sigma=s["learn_sigma"], dtype=case.precision,
    )  # fmt: skip


@PRECISIONS
def test_values_and_gradients_are_those_of_the_reference(golden_attention, precision):
    case = Case(golden_attention, precision)
    with precise(precision):
        model, w = dit(case), weights(golden_attention, case)
        params = dit_params(w, case.settings)
        forward = jax.jit(lambda params, x: model.apply({"params": params}, x, case["t"], case["y"]))
        out, pull = jax.vjp(forward, params, last(case["x"]))
        assert_near(out, last(case["out"]), precision, single=1e-4)
        grads, grad_x = pull(last(jnp.asarray(case["cotangent"])))
        assert_near(grad_x, last(case["grad/x"]), precision, exact=1e-6, single=1e-4)
        # Gradients are converted like weights; those that the file does not hold are NaN on the way.
        stored = {name: case.arrays.get(f"grad/{name}", np.full(v.shape, np.nan)) for name, v in w.items()}
        assert sum(np.isfinite(v).all() for v in stored.values()) == len(case.under("grad/")) - 1 > 0
        jax.tree.map(lambda *pair: check_gradient(*pair, precision), grads, dit_params(stored, case.settings))


def check_gradient(ours, expected, precision):
    known = np.isfinite(expected)
    if known.any():
        assert_near(np.asarray(ours)[known], expected[known], precision, exact=1e-6, single=1e-4)


@PRECISIONS
def test_taps_are_those_of_the_reference(golden_attention, precision):
    case = Case(golden_attention, precision)
    s = case.settings
    with precise(precision):
        params = dit_params(weights(golden_attention, case), s)
        side = s["size"] // s["patch"]
        places = place_features(patch_positions((side, side), (1, 1), (1, 1)), s["dim"])
        assert_near(places.astype(precision), case["pos_embed"], precision)
        expected = case["tap/t_freq_first8"]
        assert_near(time_features(case["t"], 256)[:, : expected.shape[1]], expected, precision, single=1e-4)
        t_emb = TimeEmbed(s["dim"]).apply({"params": params["time"]}, case["t"])
        assert_near(t_emb, case["tap/t_emb"], precision, single=1e-4)
        c = t_emb + params["label"]["embedding"][case["y"]]
        assert_near(c, case["tap/cond"], precision, single=1e-4)
        tokens = patchify(last(case["x"]), (s["patch"],) * 2) @ params["embed"]["kernel"]
        x = tokens + params["embed"]["bias"][None, None] + places.astype(precision)[None]
        block = DiTBlock(s["heads"], dtype=precision)
        first = jax.tree.map(lambda layers: np.array(layers[0]), params["blocks"]["layers"])
        out = block.apply({"params": first}, x, c[:, None])
        assert_near(out, case["tap/block0.out"], precision, single=1e-4)
        for leaf in first["stream"]["modulation"]["dense"].values():
            leaf[..., -s["dim"] :] = 0  # the gate of the MLP
        out = block.apply({"params": first}, x, c[:, None])
        assert_near(out, case["tap/block0.after_attn"], precision, single=1e-4)


@PRECISIONS
def test_guidance_is_that_of_the_reference(golden_attention, precision):
    case = Case(golden_attention, precision)
    with precise(precision):
        model, params = dit(case), {"params": dit_params(weights(golden_attention, case), case.settings)}
        y, scale = case["cfg/y"], case["cfg/scale"].item()
        assert y[1] == case.settings["classes"]
        inputs = (last(case["x"])[:1], case["t"][1:2], y[:1], scale)
        for channels, key in ((3, "cfg/out_first3"), (None, "cfg/out_all_input_channels")):
            out = model.apply(params, *inputs, channels, method="guided")
            assert_near(out, last(case[key]), precision, single=1e-4)


def count(model, size=32, channels=4):
    x, one = jnp.zeros((1, size, size, channels)), jnp.zeros((1,), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, one, one)
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(shapes))


def test_the_tiny_network_has_as_many_parameters_as_the_reference(golden_attention):
    case = Case(golden_attention, "float32")
    assert count(dit(case), case.settings["size"], case.settings["cin"]) == case.meta["trainable_parameters"]


@pytest.mark.parametrize(
    ("name", "patch", "with_positions", "trainable"),
    [
        ("S", 2, 32_963_360, 32_865_056), ("S", 4, 32_945_024, None), ("S", 8, 33_148_160, None),
        ("B", 2, 130_512_416, 130_315_808), ("B", 4, 130_475_648, None), ("B", 8, 130_881_536, None),
        ("L", 2, 458_102_816, None), ("L", 4, 458_053_760, None), ("L", 8, 458_594_816, None),
        ("XL", 2, 675_129_632, 674_834_720), ("XL", 4, 675_074_432, None), ("XL", 8, 675_683_072, None),
    ],
)  # fmt: skip
def test_presets_have_the_published_numbers_of_parameters(name, patch, with_positions, trainable):
    ours = count(DiT(**PRESETS[name], patch=patch))
    assert ours + (32 // patch) ** 2 * PRESETS[name]["width"] == with_positions
    assert trainable in (None, ours)


def tiny(**options):
    return DiT(width=16, depth=2, heads=2, classes=3, **options)


def test_at_first_it_gives_zeros_for_pictures_of_any_size_and_type():
    x, t, y = jnp.ones((2, 6, 5, 1)), jnp.array([0.0, 900.0]), jnp.array([0, 3])
    for model in (tiny(), tiny(learn_sigma=False, patch=4, dtype=jnp.bfloat16, remat="full")):
        out, params = jax.jit(model.init_with_output)(jax.random.key(0), x, t, y)
        np.testing.assert_array_equal(out, np.zeros((2, 6, 5, 2 if model.learn_sigma else 1)))
        assert out.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


def test_it_starts_as_published():
    model = DiT(width=128, depth=2, heads=2, classes=50)
    x, one = jnp.zeros((1, 4, 4, 4)), jnp.zeros((1,), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), x, one, one)["params"]
    stream = params["blocks"]["layers"]["stream"]
    matrices = [(stream["qkv"], 128, 384), (stream["out"], 128, 128), (params["embed"], 16, 128)]
    matrices += [(stream["feed_forward"][f"dense_{i}"], 128, 512) for i in range(2)]
    for layer, inputs, outputs in matrices:
        bound = np.sqrt(6 / (inputs + outputs))
        assert 0.98 * bound < jnp.abs(layer["kernel"]).max() <= bound and not layer["bias"].any()
    normals = [params["label"]["embedding"], *(params["time"][f"dense_{i}"]["kernel"] for i in range(2))]
    np.testing.assert_allclose([x.std() for x in normals], 0.02, rtol=0.05)
    zeros = [stream["modulation"], params["head"]]
    assert not any(leaf.any() for leaf in jax.tree.leaves(zeros))
