"""Examples as the players see them: arrays of real numbers, whatever the modality.

    real values    (x - centre) / spread                        about -1 to 1                                     (1)
    symbols        (1 - s) onehot(x) + s / K                    of the data, [*shape, K]                          (2)
                   softmax(out min(1, g / range(out)))          of the generator, g = log(1 + K (1 - s) / s)      (3)

A made symbol has a gradient because it is a distribution. That of real ones is smoothed a little: else a critic could
tell the two apart by how sure they are, and the generator would learn to be sure rather than to be right. By (3) made
ones are never surer than real ones: where a softmax is sure it has no slope, and a wrong symbol would stay for ever.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mmgen_jax.modalities.likelihoods import Categorical
from mmgen_jax.types import Array, Modality


def is_symbolic(modality: Modality) -> bool:
    """Whether its values are symbols rather than real numbers."""
    return isinstance(modality.likelihood, Categorical)


def relaxed_shape(modality: Modality) -> tuple[int, ...]:
    """Of one example as the players see it: (*space, channels)."""
    return modality.likelihood.out_shape(modality.shape) if is_symbolic(modality) else modality.shape


def relaxed(modality: Modality, x: Array, smoothing: float) -> Array:
    """Equation (1) or (2): real examples [B, *shape] -> [B, *relaxed_shape]."""
    if is_symbolic(modality):
        classes = modality.likelihood.classes
        return (1 - smoothing) * jax.nn.one_hot(x, classes) + smoothing / classes
    centre, spread = modality.standard
    return (x - centre) / spread


def shown(modality: Modality, out: Array, smoothing: float) -> Array:
    """What a generator's network returns, [B, *relaxed_shape], as a critic sees it. Float32 or better."""
    out = out.astype(jnp.promote_types(out.dtype, jnp.float32))
    if not is_symbolic(modality):
        return out
    if smoothing > 0:
        most = math.log1p(modality.likelihood.classes * (1 - smoothing) / smoothing)
        span = out.max(-1, keepdims=True) - out.min(-1, keepdims=True)
        out = out * (most / jnp.maximum(span, most))
    return jax.nn.softmax(out)


def restored(modality: Modality, x: Array) -> Array:
    """What is `shown`, as values of the modality, [B, *shape]."""
    if is_symbolic(modality):
        return jnp.argmax(x, axis=-1).astype(jnp.int32)
    centre, spread = modality.standard
    return (x * spread + centre).astype(modality.dtype)
