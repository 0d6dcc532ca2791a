"""Scaled dot-product attention with grouped queries, by whichever implementation is fast where it runs.

    Attention(q, k, v) = softmax(scale q k^T + bias, over visible keys) v,    scale = d^-1/2 unless given    (1)

(Vaswani et al. 2017, arXiv:1706.03762; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.) The softmax is taken in
float32 or better. A query that sees nothing gets zeros, where an additive mask of large negative numbers would give the
mean of v. Causal means that query i sees the keys 0..i, also where there are more keys than queries.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array

HOPPER = ("H100", "H200", "GH200")  # where cuDNN's kernel is about twice as fast as others; on A100 it is slower


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    implementation: str | None = None,
) -> Array:
    """Equation (1): q [B, T, H, d], k and v [B, S, G, d] with H a multiple of G -> [B, T, H, d].

    Head h reads head h // (H / G) of k and v.

    mask: bool, broadcastable to [B, H, T, S] (four axes), True = visible.
    bias: of the same shape, added to the scaled scores.
    implementation: "xla", "cudnn" (no forward-mode derivatives) or None: the faster one that can do it.
    Raises ValueError if the heads do not divide, or if the implementation asked for cannot do it here.
    """
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"q has {q.shape[2]} heads; allowed: a multiple of the {k.shape[2]} heads of k")
    if implementation not in (None, "xla", "cudnn"):
        raise ValueError(f"implementation is {implementation!r}; allowed: 'xla', 'cudnn' or None")
    obstacle = cudnn_obstacle(q, mask, bias)
    if implementation == "cudnn" and obstacle:
        raise ValueError(f"implementation is 'cudnn', but {obstacle}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if implementation == "cudnn" or (implementation is None and obstacle is None and on_hopper()):
        return jax.nn.dot_product_attention(q, k, v, scale=scale, is_causal=causal, implementation="cudnn")
    return plain_attention(q, k, v, mask, bias, causal, scale)


def on_hopper() -> bool:
    """Asked while tracing, of the device on which arrays live by default."""
    return any(name in jax.devices()[0].device_kind for name in HOPPER)


def cudnn_obstacle(q: Array, mask: Array | None, bias: Array | None) -> str | None:
    """What cuDNN's kernel cannot do about this call, with what it can; None where nothing stands in its way.

    It would take a mask or a bias, but only written out as [B, H, T, S], which is what it is there to avoid.
    """
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"dtype is {q.dtype}; allowed: bfloat16, float16"
    if q.shape[-1] > 128 or q.shape[-1] % 8:
        return f"head dimension is {q.shape[-1]}; allowed: multiples of 8 up to 128"
    for name, given in (("mask", mask), ("bias", bias)):
        if given is not None:
            return f"{name} has shape {given.shape}; allowed: None"
    if jax.default_backend() != "gpu":
        return f"the device is a {jax.default_backend()}; allowed: gpu"
    return None


def plain_attention(
    q: Array, k: Array, v: Array, mask: Array | None, bias: Array | None, causal: bool, scale: float
) -> Array:
    """Equation (1), written out; v may have another width than q and k."""
    weights = attention_weights(q, k, mask, bias, causal, scale).astype(v.dtype)
    batch, heads, length, keys = weights.shape
    weights = weights.reshape(batch, k.shape[2], heads // k.shape[2], length, keys)
    return jnp.einsum("bgrts,bsgd->btgrd", weights, v).reshape(*q.shape[:-1], v.shape[-1])


def attention_weights(q: Array, k: Array, mask: Array | None, bias: Array | None, causal: bool, scale: float) -> Array:
    """The softmax of equation (1), [B, H, T, S] in float32 or better: how much each query takes of each key."""
    (batch, length, heads, d), (keys, groups) = q.shape, k.shape[1:3]
    wide = jnp.promote_types(q.dtype, jnp.float32)
    grouped = q.reshape(batch, length, groups, heads // groups, d)
    scores = jnp.einsum("btgrd,bsgd->bgrts", grouped, k, preferred_element_type=wide) * scale
    scores = scores.reshape(batch, heads, length, keys)
    if bias is not None:
        scores = scores + bias.astype(wide)
    if causal:
        seen = jnp.tril(jnp.ones((1, 1, length, keys), bool))
        mask = seen if mask is None else mask & seen
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    return jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(wide).min), axis=-1), 0)
