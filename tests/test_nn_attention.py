"""Attention against PyTorch's numbers, and the choice between implementations."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import PRECISIONS, Case, assert_near, of_files, precise

from mmgen_jax.nn import attention as module
from mmgen_jax.nn.attention import attention

reads = of_files("sdpa")
SQUARE = ("causal_square", "padding_causal", "gqa_causal")


def options(case, name):
    if name.startswith("padding"):
        keys = np.arange(case["k"].shape[2]) < case["key_lengths"][:, None]
        return {"mask": keys[:, None, None], "causal": "causal" in name}
    return {
        "mask": case["mask_with_empty_row"] if name == "empty_row" else None,
        "bias": case["bias"] if name == "bias" else None,
        "scale": float(re.search(r"scale=([\d.]+)", case.meta["cases"]["scale"])[1]) if name == "scale" else None,
        "causal": "causal" in name,
    }


@PRECISIONS
def test_values_and_gradients_are_those_of_the_reference(golden_attention, precision):
    case = Case(golden_attention, precision)
    with precise(precision):
        for name in case.meta["cases"]:
            kv = ("k_gqa", "v_gqa") if name.startswith("gqa") else ("k", "v")
            q, k, v = (case[key].swapaxes(1, 2) for key in ("q_square" if name in SQUARE else "q", *kv))
            out, pull = jax.vjp(lambda *qkv, name=name: attention(*qkv, **options(case, name)), q, k, v)
            assert_near(out.swapaxes(1, 2), case[f"{name}/out"], precision)
            if f"{name}/cot" in case:
                for grad, key in zip(pull(jnp.asarray(case[f"{name}/cot"]).swapaxes(1, 2)), "qkv", strict=True):
                    assert_near(grad.swapaxes(1, 2), case[f"{name}/d{key}"], precision, exact=1e-6)


def qkv(dtype=jnp.float32, d=8, heads=(4, 2)):
    shapes = [(2, 5, heads[0], d), *[(2, 7, heads[1], d)] * 2]
    return [jax.random.normal(jax.random.key(i), shape).astype(dtype) for i, shape in enumerate(shapes)]


def test_half_precision_keeps_the_softmax_in_float32():
    q, k, v = qkv()
    exact = attention(q, k, v)
    rough = attention(*(a.astype(jnp.bfloat16) for a in (q, k, v)))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype(jnp.float32), exact, atol=0.03)
    # Logits of about 300 and 301 are the same number in bfloat16.
    q, k = jnp.full((1, 1, 1, 1), 300, jnp.bfloat16), jnp.array([1, 1 + 2**-7], jnp.bfloat16).reshape(1, 2, 1, 1)
    second = attention(q, k, jnp.array([0, 1], jnp.bfloat16).reshape(1, 2, 1, 1)).item()
    assert abs(second - jax.nn.sigmoid(300 / 128)) < 4e-3


def test_a_query_that_sees_nothing_gives_zeros_and_finite_gradients():
    q, k, v = qkv()
    mask = jnp.ones((1, 1, 5, 7), bool).at[:, :, 2].set(False)
    out, pull = jax.vjp(lambda *a: attention(*a, mask=mask), q, k, v)
    assert not out[:, 2].any() and out[:, 1].all()
    assert all(jnp.isfinite(grad).all() for grad in pull(jnp.ones_like(out)))


def test_what_a_query_does_not_see_changes_nothing_and_causal_is_aligned_top_left():
    q, k, v = qkv()
    jacobian = jax.jacrev(lambda v: attention(q, k, v, causal=True)[0, :, 0, 0])(v)[:, 0, :, 0, 0]
    np.testing.assert_array_equal(jacobian != 0, np.tri(5, 7, dtype=bool))


BAD = [
    (qkv(heads=(4, 3)), {}, "q has 4 heads; allowed: a multiple of the 3 heads of k"),
    (qkv(), {"implementation": "flash"}, "implementation is 'flash'; allowed: 'xla', 'cudnn' or None"),
    (qkv(), {"implementation": "cudnn"}, "but dtype is float32; allowed: bfloat16, float16"),
    (qkv(jnp.bfloat16, 12), {"implementation": "cudnn"}, "head dimension is 12; allowed: multiples of 8 up to 128"),
    (
        qkv(jnp.bfloat16),
        {"implementation": "cudnn", "mask": np.ones((1, 1, 5, 7), bool)},
        r"mask has shape \(1, 1, 5, 7\); allowed: None",
    ),
]


@pytest.mark.parametrize(("arrays", "options", "message"), BAD)
def test_an_impossible_request_is_refused_in_one_sentence(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        attention(*arrays, **options)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="cuDNN is there")
def test_cudnn_needs_a_gpu():
    with pytest.raises(ValueError, match="the device is a .*; allowed: gpu"):
        attention(*qkv(jnp.bfloat16), implementation="cudnn")


@pytest.mark.parametrize(
    ("kind", "dtype", "d", "mask", "chosen"),
    [
        ("NVIDIA H100 80GB HBM3", jnp.bfloat16, 64, None, True),
        ("NVIDIA H200", jnp.float16, 128, None, True),
        ("NVIDIA A100-SXM4-40GB", jnp.bfloat16, 64, None, False),
        ("NVIDIA H100 80GB HBM3", jnp.float32, 64, None, False),
        ("NVIDIA H100 80GB HBM3", jnp.bfloat16, 36, None, False),
        ("NVIDIA H100 80GB HBM3", jnp.bfloat16, 64, np.ones((1, 1, 5, 7), bool), False),
    ],
)
def test_the_choice_follows_device_and_shape(monkeypatch, kind, dtype, d, mask, chosen):
    asked = []
    here = types.SimpleNamespace(
        devices=lambda: [types.SimpleNamespace(device_kind=kind)],
        default_backend=lambda: "gpu",
        nn=types.SimpleNamespace(
            softmax=jax.nn.softmax, dot_product_attention=lambda q, *_, **options: asked.append(options) or q
        ),
    )
    monkeypatch.setattr(module, "jax", here)
    attention(*qkv(dtype, d), mask=mask, causal=True)
    expected = [{"scale": d**-0.5, "is_causal": True, "implementation": "cudnn"}] if chosen else []
    assert asked == expected
    attention(*qkv(dtype, d), mask=mask, implementation="xla")
    assert asked == expected


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize("causal", [False, True])
def test_cudnn_is_the_same_function(causal):
    arrays = qkv(jnp.bfloat16, 64)

    def loss(implementation):
        return lambda *a: attention(*a, causal=causal, implementation=implementation).astype(jnp.float32).sum()

    for a, b in zip(*(jax.grad(loss(i), (0, 1, 2))(*arrays) for i in ("xla", "cudnn")), strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), atol=0.05)
