"""What is given, read part by part: cross-attention of the generator to condition tokens.

    t_mi = n(tokens_m(x_m)_i) + p_mi,   n(t) = s t / rms(t)                   condition tokens, T_m each         (1)
    a_n  = W_o Attention(W_q [h; z_n], W_k t, W_v t)    over the tokens t of all that is given                   (2)

A code c_m says all of x_m at once, and the same to every modality that is made of it; by (2) each asks for what it
needs: a picture for a word, a sentence for a part of the picture. As the queries know the noise, examples made of the
same condition may look at different tokens. Where nothing is given a_n = 0. Attention to words: Xu et al. 2018
(arXiv:1711.10485); by what drives all layers, not at every place: the style in Kang et al. 2023 (arXiv:2303.05511).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.nn.attention import attention
from mmgen_jax.types import Array, Modality

HEAD = 32  # numbers of each head
Tokens = tuple[Array, Array]  # [B, T, width] of all modalities together, and which of them are given, bool [B, T]


class Reader(nn.Module):
    """Equations (1) and (2). Attributes as of `GAN`; `width` is also that of the tokens."""

    modalities: Mapping[str, Modality]
    width: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        names, heads = sorted(self.modalities), (-(-self.width // HEAD), HEAD)
        counts = {name: len(self.modalities[name].positions()) for name in names}
        begin = nn.initializers.normal(0.02)
        self.embeddings = {name: self.modalities[name].tokens_in(self.width, self.dtype) for name in names}
        self.places = {name: self.param(f"places_{name}", begin, (counts[name], self.width)) for name in names}
        self.norm = nn.RMSNorm(dtype=self.dtype)  # so that symbols are as loud as real values
        self.key, self.value = (nn.DenseGeneral(heads, use_bias=False, dtype=self.dtype) for _ in range(2))
        self.queries = {name: nn.DenseGeneral(heads, dtype=self.dtype) for name in names}
        self.outs = {name: nn.DenseGeneral(self.width, (-2, -1), use_bias=False, dtype=self.dtype) for name in names}

    def tokens(self, values: Mapping[str, Array], given: Mapping[str, Array]) -> Tokens:
        """Equation (1): values [B, *shape], given bool [B]."""
        tokens, seen = [], []
        for name, embed in self.embeddings.items():
            t = self.norm(embed(values[name])) + self.places[name].astype(self.dtype)[None]
            tokens.append(t)
            seen.append(jnp.broadcast_to(given[name][:, None], t.shape[:2]))
        return jnp.concatenate(tokens, axis=1), jnp.concatenate(seen, axis=1)

    def read(self, name: str, h: Array, own: Array, tokens: Tokens) -> Array:
        """Equation (2): h [B, width] and z_n [B, own] -> a_n [B, width]."""
        code, (t, seen) = jnp.concatenate([h, own.astype(h.dtype)], axis=-1), tokens
        found = attention(self.queries[name](code)[:, None], self.key(t), self.value(t), mask=seen[:, None, None])
        return self.outs[name](found[:, 0])
