"""One file per published objective. An objective is a frozen dataclass of its hyper-parameters and its `fusion`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from mmgen_jax.types import Array
from mmgen_jax.vae.fusion import Fusion
from mmgen_jax.vae.latent import Inference, Noise

LogLikelihoods = Callable[[Array, Mapping[str, Array]], Array]  # z [B, D], private codes -> [M, B], 0 where missing


class Objective(Protocol):
    """What a VAE minimises."""

    fusion: Fusion

    def __call__(
        self, inference: Inference, log_likelihoods: LogLikelihoods, weights: Array, noise: Noise, step: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        """The loss [B] in nats, and its unweighted terms ([B], or [M, B] per modality).

        `weights` [M, 1] multiply the log-likelihoods; `step` is for schedules.
        """
        ...
