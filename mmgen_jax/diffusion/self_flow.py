"""Self-Flow: early features of tokens at two noise levels are to foretell late features of all at the cleaner one.

    s_m = min over the tokens of t_m                     what the teacher sees, noised with the same noise          (1)
    L = mean over the tokens that are there of 1 - cos(P h(x_t, t), stop(h'(x_s, s)))                              (2)

(Chefer et al. 2026, arXiv:2603.06507.) h: the tokens after 0.3 of the blocks, h': the teacher's after 0.7. P: two
layers, trained with the rest and used for nothing else. The teacher is the same network with the averaged parameters
where there are any, else with its own. The two times of each modality are those of `times.py`, equation (4). A weight
of 0.1 to 0.8 is in use; the authors' code for training is not public.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import optax

from mmgen_jax.diffusion.representation import Look, require_share
from mmgen_jax.nn.dit import FeedForward
from mmgen_jax.types import Array, Key, Params


@dataclasses.dataclass(frozen=True)
class SelfFlow:
    """The loss (2).

    Attributes:
        weight: of it in the loss of the model.
        depth, teacher: the shares of the blocks after which h and h' are taken.

    Raises:
        ValueError: the weight is negative, a share is not in (0, 1], or h is taken after h'.
    """

    weight: float = 0.1
    depth: float = 0.3
    teacher: float = 0.7
    needs_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"SelfFlow: weight is {self.weight}, but must be at least 0")
        for field in ("depth", "teacher"):
            require_share("SelfFlow", field, getattr(self, field))
        if self.depth > self.teacher:
            raise ValueError(f"SelfFlow: depth is {self.depth}, but must be at most teacher = {self.teacher}")

    def init(self, key: Key, width: int) -> dict[str, Params]:
        """P."""
        return {"projection": FeedForward().init(key, jnp.zeros((1, 1, width)))["params"]}

    def error(
        self, params: Params, tokens: Array, t: Mapping[str, Array], present: Mapping[str, Array], look: Look
    ) -> Array:
        """(2), [B]: see `Representation`."""
        late = look({name: time.min(axis=1) for name, time in t.items()}, self.teacher).astype(jnp.float32)
        foretold = FeedForward().apply({"params": params["projection"]}, tokens.astype(jnp.float32))
        error = 1 - optax.cosine_similarity(foretold, late, epsilon=1e-6)
        there = jnp.concatenate([jnp.broadcast_to(present[name][:, None], t[name].shape) for name in sorted(t)], axis=1)
        return jnp.sum(there * error, axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)
