"""The blocks of diffusion transformers: SD3's numbers, and what holds for any weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    PRECISIONS,
    Case,
    assert_near,
    dense,
    last,
    merged,
    of_files,
    of_heads,
    patches,
    perturbed,
    precise,
)

from mmgen_jax.nn.dit import DiTBlock, FeedForward, Head, JointBlock, Stack, TimeEmbed
from mmgen_jax.nn.embed import patch_grid, patch_positions, patchify, unpatchify
from mmgen_jax.nn.rope import place_features, tables

reads = of_files("joint_block", "sd3_mmdit")
NAMES = {  # of SD3's layers: modulation, q, k, v, output, norms of q and k, MLP
    "image": ("norm1", "to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k", "ff"),
    "context": ("norm1_context", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q",
                "norm_added_k", "ff_context"),
}  # fmt: skip


def swapped(layer):
    """(scale, shift) -> (shift, scale)."""
    return {leaf: np.roll(array, array.shape[-1] // 2, axis=-1) for leaf, array in layer.items()}


def stream(w, names, heads, updated=True):
    norm, q, k, v, out, q_norm, k_norm, mlp = names
    modulation = dense(w, f"{norm}.linear")
    layers = [dense(w, f"attn.{name}") for name in ((q, k, v) if updated else (k, v))]
    params = {"qkv": merged(layers, heads), "modulation": {"dense": modulation if updated else swapped(modulation)}}
    if f"attn.{k_norm}.weight" in w:
        params |= {"k_norm": {"scale": w[f"attn.{k_norm}.weight"]}}
        params |= {"q_norm": {"scale": w[f"attn.{q_norm}.weight"]}} if updated else {}
    if updated:
        params["out"] = of_heads(dense(w, f"attn.{out}"), heads)
        params["feed_forward"] = {"dense_0": dense(w, f"{mlp}.net.0.proj"), "dense_1": dense(w, f"{mlp}.net.2")}
    return params


def joint_params(w, heads, final):
    return {m: stream(w, names, heads, updated=not (final and m == "context")) for m, names in NAMES.items()}


def joint_block(settings, heads, final, dtype, name=None):
    seen_only = ("context",) if final else ()
    ratio, qk_norm = settings.get("mlp_ratio", 4), settings["qk_norm"] is not None
    return JointBlock(heads, tuple(NAMES), seen_only, ratio=ratio, qk_norm=qk_norm, dtype=dtype, name=name)


class SD3(nn.Module):
    """The complete network of the reference, from `JointBlock`."""

    settings: dict
    dtype: str

    @nn.compact
    def __call__(self, x, context, pooled, t):
        s, patch = self.settings, (self.settings["patch_size"],) * 2
        width, space = s["caption_projection_dim"], x.shape[1:-1]
        h = nn.silu(nn.Dense(width, dtype=self.dtype, name="text_0")(pooled))
        c = TimeEmbed(width, name="time")(t) + nn.Dense(width, dtype=self.dtype, name="text_1")(h)
        c = dict.fromkeys(NAMES, c[:, None])
        side, cells = s["pos_embed_max_size"], patch_grid(space, patch)
        corner = [(side - n) // 2 for n in cells]
        places = (patch_positions(cells, (1, 1), (1, 1)) + corner) / (side * patch[0] / s["sample_size"])
        image = nn.Dense(width, dtype=self.dtype, name="image")(patchify(x, patch))
        image = image + jnp.asarray(place_features(places, width), self.dtype)[None]
        tokens = {"image": image, "context": nn.Dense(width, dtype=self.dtype, name="context")(context)}
        for i in range(s["num_layers"]):
            final = i == s["num_layers"] - 1
            tokens = joint_block(s, s["num_attention_heads"], final, self.dtype, name=f"block_{i}")(tokens, c)
        out = Head(patch[0] ** 2 * s["out_channels"], name="head")(tokens["image"], c["image"])
        return unpatchify(out, patch, space)


def sd3_params(case):
    w, s = case.under("w/"), case.settings
    embedder = "time_text_embed.{}_embedder.linear_{}".format
    params = {
        "time": {f"dense_{i}": dense(w, embedder("timestep", i + 1)) for i in range(2)},
        "text_0": dense(w, embedder("text", 1)),
        "text_1": dense(w, embedder("text", 2)),
        "image": patches(w, "pos_embed.proj"),
        "context": dense(w, "context_embedder"),
        "head": {"modulation": {"dense": swapped(dense(w, "norm_out.linear"))}, "dense": dense(w, "proj_out")},
    }
    for i in range(s["num_layers"]):
        block = case.under(f"w/transformer_blocks.{i}.")
        params[f"block_{i}"] = joint_params(block, s["num_attention_heads"], i == s["num_layers"] - 1)
    return params


@PRECISIONS
def test_values_and_gradients_are_those_of_the_reference(golden_attention, precision):
    case = Case(golden_attention, precision)
    with precise(precision):
        (check_sd3 if "num_layers" in case.settings else check_joint_block)(case)


def check_joint_block(case):
    s = case.settings
    block = joint_block(s, s["heads"], s["context_pre_only"], case.precision)
    params = joint_params(case.under("w/"), s["heads"], s["context_pre_only"])

    def forward(hidden, context, temb):
        c = dict.fromkeys(NAMES, temb[:, None])
        return block.apply({"params": params}, {"image": hidden, "context": context}, c)

    out, pull = jax.vjp(jax.jit(forward), *(case[key] for key in ("hidden", "context", "temb")))
    names = {"image": "hidden", "context": "context"}
    assert set(out) == {m for m, name in names.items() if f"out_{name}" in case}
    for m in out:
        assert_near(out[m], case[f"out_{names[m]}"], case.precision)
    grads = pull({m: jnp.asarray(case[f"cot_{names[m]}"]) for m in out})
    for grad, key in zip(grads, ("hidden", "context", "temb"), strict=True):
        assert_near(grad, case[f"grad/{key}"], case.precision, exact=1e-6)


def check_sd3(case):
    network, params = SD3(case.settings, case.precision), {"params": sd3_params(case)}
    inputs = [case[key] for key in ("context", "pooled", "t")]
    out, pull = jax.vjp(jax.jit(lambda x: network.apply(params, x, *inputs)), last(case["x"]))
    assert_near(out, last(case["out"]), case.precision, single=1e-4)
    (grad,) = pull(last(jnp.asarray(case["cotangent"])))
    assert_near(grad, last(case["grad/x"]), case.precision, exact=1e-6, single=1e-4)


B, T, D, LENGTHS = 2, 6, 24, (2, 2, 1, 1)
ROPE = tables(np.random.default_rng(0).normal(size=(T, 2)), 8)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def begun(block, *args, **kwargs):
    """What it gives with its first weights, and those."""
    return jax.jit(lambda key: block.init_with_output(key, *args, **kwargs))(jax.random.key(9))


def made(block, *args, **kwargs):
    """A function of the arguments, with weights none of which is zero."""
    params = perturbed(begun(block, *args, **kwargs)[1])
    return lambda *args, **kwargs: jax.jit(lambda p: block.apply(p, *args, **kwargs))(params)


OPTIONS = [{}, {"qk_norm": True, "mlp": "swiglu", "ratio": 2.0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_at_first_blocks_are_the_identity_and_heads_give_zeros(options):
    x, c = normal(0, B, T, D), normal(1, B, 4, D)
    out, params = begun(DiTBlock(3, **options), x, c, LENGTHS, ROPE)
    np.testing.assert_array_equal(out, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    out, _ = begun(Head(5), x, c, LENGTHS)
    np.testing.assert_array_equal(out, jnp.zeros((B, T, 5)))
    both, cs = {"a": x, "b": x[:, :2]}, dict.fromkeys("ab", c[:, :1])
    out, _ = begun(JointBlock(3, ("a", "b"), **options), both, cs)
    jax.tree.map(np.testing.assert_array_equal, out, both)


@pytest.mark.parametrize("options", OPTIONS)
def test_vectors_for_all_for_segments_and_for_every_token_mean_the_same(options):
    x, c = normal(0, B, T, D), normal(1, B, 1, D)
    for module in (DiTBlock(3, **options), Head(5)):
        run = made(module, x, c)
        expected = run(x, c)
        np.testing.assert_allclose(run(x, c.repeat(4, 1), lengths=LENGTHS), expected, atol=1e-5)
        np.testing.assert_allclose(run(x, c.repeat(T, 1)), expected, atol=1e-5)
        c_4 = normal(2, B, 4, D)
        every = jnp.concatenate([c_4[:, i : i + 1].repeat(n, 1) for i, n in enumerate(LENGTHS)], axis=1)
        np.testing.assert_allclose(run(x, c_4, lengths=LENGTHS), run(x, every), atol=1e-5)
        assert jnp.abs(run(x, every) - expected).max() > 0.1


@pytest.mark.parametrize("options", OPTIONS)
def test_streams_with_the_same_weights_are_one_sequence(options):
    x, c = normal(0, B, T, D), normal(1, B, 4, D)
    block = DiTBlock(3, **options)
    params = perturbed(begun(block, x, c, LENGTHS, ROPE)[1])
    expected = block.apply(params, x, c, LENGTHS, ROPE)
    names, ends = ("a", "b", "c", "d"), np.cumsum(LENGTHS)[:-1]
    cut = [np.split(table, ends) for table in ROPE]
    out = JointBlock(3, names, **options).apply(
        {"params": {m: params["params"]["stream"] for m in names}},
        dict(zip(names, jnp.split(x, ends, axis=1), strict=True)),
        {m: c[:, i : i + 1] for i, m in enumerate(names)},
        {m: (cut[0][i], cut[1][i]) for i, m in enumerate(names)},
    )
    np.testing.assert_allclose(jnp.concatenate([out[m] for m in names], axis=1), expected, atol=1e-5)


def test_streams_that_are_only_seen_change_the_others_in_the_same_way():
    x, c = {"a": normal(0, B, 4, D), "b": normal(1, B, 3, D)}, dict.fromkeys("ab", normal(2, B, 1, D))
    full, last_block = JointBlock(3, ("a", "b"), qk_norm=True), JointBlock(3, ("a", "b"), ("b",), qk_norm=True)
    params = perturbed(begun(full, x, c)[1])["params"]
    b = params["b"]
    small = {
        "k_norm": b["k_norm"],
        "qkv": {"kernel": b["qkv"]["kernel"][:, 1:], "bias": b["qkv"]["bias"][1:]},
        "modulation": {"dense": {leaf: v[..., : 2 * D] for leaf, v in b["modulation"]["dense"].items()}},
    }
    out = last_block.apply({"params": {"a": params["a"], "b": small}}, x, c)
    assert set(out) == {"a"}
    np.testing.assert_allclose(out["a"], full.apply({"params": params}, x, c)["a"], atol=1e-5)
    own = begun(last_block, x, c)[1]["params"]["b"]
    assert jax.tree.map(np.shape, own) == jax.tree.map(np.shape, small)  # no idle weights


def test_masked_tokens_change_nothing():
    x, c = normal(0, B, T, D), normal(1, B, 1, D)
    run = made(DiTBlock(3), x, c)
    mask = jnp.ones((1, 1, 1, T), bool).at[..., 4:].set(False)
    other = x.at[:, 4:].set(7.0)
    np.testing.assert_array_equal(run(x, c, mask=mask)[:, :4], run(other, c, mask=mask)[:, :4])
    assert jnp.abs(run(x, c)[:, :4] - run(other, c)[:, :4]).max() > 1e-3


def test_moving_all_positions_changes_nothing():
    x, c, places = normal(0, B, T, D), normal(1, B, 1, D), np.arange(T)[:, None] / 3
    run = made(DiTBlock(3), x, c)
    here, there = (run(x, c, rope=tables(places + shift, 8)) for shift in (0, 40))
    np.testing.assert_allclose(here, there, atol=1e-4)
    assert jnp.abs(here - run(x, c)).max() > 1e-3


def test_half_precision_stays_close_and_leaves_the_conditioning_exact():
    x, c = normal(0, B, T, D), normal(1, B, 1, D)
    params = perturbed(begun(DiTBlock(3, qk_norm=True), x, c)[1])
    exact, rough = (
        DiTBlock(3, qk_norm=True, dtype=dtype).apply(params, x.astype(dtype), c, rope=ROPE)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert rough.dtype == jnp.bfloat16 and Head(5).init_with_output(jax.random.key(0), rough, c)[0].dtype == jnp.float32
    np.testing.assert_allclose(rough.astype(jnp.float32), exact, atol=0.1)


@pytest.mark.parametrize("remat", [None, "full", "dots", "names"])
def test_a_stack_is_its_blocks_one_after_the_other_and_remat_changes_nothing(remat):
    x, c, block = normal(0, B, T, D), normal(1, B, 4, D), DiTBlock(3, qk_norm=True)
    stack = Stack(block, 3, remat)
    params = perturbed(begun(stack, x, c, LENGTHS, ROPE)[1])

    def unrolled(params, x, c):
        for i in range(3):
            weights = jax.tree.map(lambda w, i=i: w[i], params["params"]["layers"])
            x = block.apply({"params": weights}, x, c, LENGTHS, ROPE)
        return x

    def results(form):
        return jax.jit(jax.value_and_grad(lambda *args: jnp.sin(form(*args)).sum(), (0, 1, 2)))(params, x, c)

    scanned = results(lambda params, x, c: stack.apply(params, x, c, lengths=LENGTHS, rope=ROPE))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), scanned, results(unrolled))


def test_blocks_of_a_stack_start_differently_and_may_be_joint():
    x, c = {"a": normal(0, B, 4, D), "b": normal(1, B, 3, D)}, dict.fromkeys("ab", normal(2, B, 1, D))
    stack = Stack(JointBlock(3, ("a", "b")), 2, "full")
    out, params = begun(stack, x, c)
    jax.tree.map(np.testing.assert_array_equal, out, x)
    first, second = params["params"]["layers"]["a"]["qkv"]["kernel"]
    assert jnp.abs(first - second).min() > 0


def test_a_tap_gives_what_came_out_of_that_block():
    x, c = {"a": normal(0, B, 4, D), "b": normal(1, B, 3, D)}, dict.fromkeys("ab", normal(2, B, 1, D))
    block = JointBlock(3, ("a", "b"))
    params = perturbed(begun(Stack(block, 3), x, c)[1])
    run = jax.jit(lambda params: Stack(block, 3).apply(params, (1, 3), x, c, method="tapped"))
    out, kept = run(params)
    first = block.apply({"params": jax.tree.map(lambda w: w[0], params["params"]["layers"])}, x, c)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), kept[1], first)
    jax.tree.map(np.testing.assert_array_equal, kept[3], out)


def test_swiglu_has_about_as_many_parameters_as_gelu():
    def count(kind):
        shapes = jax.eval_shape(FeedForward(kind).init, jax.random.key(0), jnp.zeros((1, 1, 384)))
        return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    assert abs(count("swiglu") / count("gelu") - 1) < 1e-3


@pytest.mark.parametrize(
    ("block", "vectors", "lengths", "message"),
    [
        (DiTBlock(3), 3, None, "c has 3 vectors for 6 tokens; allowed: 1, 6, or give lengths"),
        (DiTBlock(3), 3, (1, 2, 2), r"lengths is \(1, 2, 2\); allowed: 3 numbers, as c has, that sum to 6 tokens"),
        (DiTBlock(5), 1, None, "heads is 5; allowed: divisors of the width 24"),
        (DiTBlock(3, mlp="relu"), 1, None, "mlp is 'relu'; allowed: 'gelu', 'swiglu'"),
        (Stack(DiTBlock(3), 2, "some"), 1, None, "remat is 'some'; allowed: 'full', 'dots', 'names' or None"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(block, vectors, lengths, message):
    with pytest.raises(ValueError, match=message):
        block.init(jax.random.key(0), normal(0, B, T, D), normal(1, B, vectors, D), lengths)
