"""Priors fitted after training, to the codes that the encoders really give.

Training pulls codes towards N(0, I), but their distribution over the data, the aggregate posterior, is never quite
that. Where the two differ, joint generation decodes codes that no decoder has learned from. A prior fitted to codes of
the training data closes the gap (Ghosh et al. 2020, arXiv:1903.12436).
"""

from __future__ import annotations

from typing import Protocol

import flax.struct

from mmgen_jax.types import Array, Key, Params


class Prior(Protocol):
    """A density over codes of D dimensions: a frozen dataclass of hyper-parameters.

    `params` are arrays only. Everything is float32, whatever the codes are.
    """

    def fit(self, key: Key, codes: Array) -> Params: ...  # codes [N, D]; raises ValueError for other shapes
    def sample(self, params: Params, key: Key, n: int) -> Array: ...  # [n, D]
    def log_prob(self, params: Params, z: Array) -> Array: ...  # [..., D] -> [...], in nats


@flax.struct.dataclass
class Fitted:
    """A prior with the parameters that fit a model's codes, shared and private side by side."""

    params: Params
    prior: Prior = flax.struct.field(pytree_node=False)

    def sample(self, key: Key, n: int) -> Array:
        """n codes, [n, D]."""
        return self.prior.sample(self.params, key, n)
