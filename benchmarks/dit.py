"""DiT as the training loop trains it: by flow matching, on latents of 32 x 32 x 4 with their labels (256 tokens).

x_t = (1 - t) x + t e,    loss = mean |out(x_t, 1000 t, y) - (e - x)|^2,    e ~ N(0, I), t ~ U(0, 1)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mmgen_jax as mm
from mmgen_jax.diffusion.dit import PRESETS, DiT
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Array, Batch, Key, Metrics, Params, Stats, TrainState

LATENT = mm.Image(32, 32, 4)
LABEL = mm.Label(1000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowDiT:
    """size: of `PRESETS`, with patches of 2. dtype, remat: as in `DiT`."""

    size: str
    dtype: str = "float32"
    remat: str | None = None

    @property
    def modalities(self) -> dict[str, Any]:
        return {"image": LATENT, "label": LABEL}

    @property
    def network(self) -> DiT:
        return DiT(**PRESETS[self.size], learn_sigma=False, dtype=jnp.dtype(self.dtype), remat=self.remat)

    def init(self, key: Key) -> tuple[Params, Stats]:
        x, t, y = jnp.zeros((1, *LATENT.shape)), jnp.zeros(1), jnp.zeros(1, int)
        return self.network.init(key, x, t, y)["params"], {}

    def loss(self, params: Params, stats: Stats, batch: Batch, key: Key) -> tuple[Array, tuple[Stats, Metrics]]:
        x = batch.values["image"]
        t_key, noise_key = jax.random.split(key)
        t, noise = jax.random.uniform(t_key, x.shape[:1]), jax.random.normal(noise_key, x.shape)
        along = t[:, None, None, None]
        out = self.network.apply({"params": params}, (1 - along) * x + along * noise, 1000 * t, batch.values["label"])
        return jnp.square(out - (noise - x)).mean((1, 2, 3)), (stats, {})

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        return gradient_step(self.loss, tx, state, batch, key)


def training(size: str, batch_size: int, dtype: str = "float32", remat: str | None = None) -> mm.Experiment:
    """The published recipe (AdamW at 1e-4, an average of the parameters) on no data."""
    return mm.Experiment(
        model=FlowDiT(size=size, dtype=dtype, remat=remat),
        data=mm.data.Arrays({}),
        steps=1000,
        batch_size=batch_size,
        optimizer=mm.Optimizer(learning_rate=1e-4, ema=0.9999),
        steps_per_call=4,
    )
