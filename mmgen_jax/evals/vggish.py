"""Features of sounds by VGGish (Hershey et al. 2017, arXiv:1609.09430), the network that the Frechet audio distance
rests on (Kilgour et al. 2019, arXiv:1812.08466), for weights that the user has.

    s = log(M |F w| + 0.01)          16 kHz, Hann windows of 25 ms every 10 ms, 64 bands of 125 to 7,500 Hz        (1)
    128 numbers for every 96 frames of s, by four blocks of kernels of three by three, each followed by the maximum
    of two by two, and three linear layers; no ReLU after the last                                                 (2)

A sound is the mean of (2) over its times. Names of weights are those of its common port to PyTorch
(`features.0.weight`, `embeddings.4.bias`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmgen_jax.evals.pretrained import (
    Get,
    Pretrained,
    Weights,
    channels,
    convolved,
    fitting,
    getter,
    linear,
    shapes,
    stamp,
)
from mmgen_jax.evals.sounds import heard, require_sounds
from mmgen_jax.evals.weights_file import read_weights
from mmgen_jax.types import Array, EvalData, Modality

NAME, VERSION = "VGGish", "1"
RATE, WINDOW, HOP, FFT = 16_000, 400, 160, 512
BANDS, LOWEST, HIGHEST = 64, 125.0, 7_500.0
FRAMES = 96  # that (2) sees at a time
SHORTEST = WINDOW + (FRAMES - 1) * HOP  # samples; what is shorter is followed by silence
BLOCKS = {64: (0,), 128: (3,), 256: (6, 8), 512: (11, 13)}  # channels, and by what the kernels are called in the file


@dataclasses.dataclass(frozen=True)
class VGGish:
    """Features [N, 128] of sounds; an `Extractor`.

    Attributes:
        weights: a .safetensors or .npz file.
    """

    weights: str

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Pretrained:
        """Nothing is learned.

        Raises:
            ValueError: the modality is none of sounds, or the file cannot be read or does not fit.
        """
        require_sounds("VGGish", name, modality)
        arrays, sha256 = read_weights(self.weights)
        wanted = shapes(network, jax.ShapeDtypeStruct((1, FRAMES, BANDS, 1), jnp.float32))
        stamp(data, name, NAME, VERSION, sha256)
        return Pretrained(fitting("VGGish", arrays, wanted), look, lambda x: heard(modality, x, RATE))


@jax.jit
def look(weights: Weights, waves: Array) -> dict[str, Array]:
    """The mean of (2) over time, [N, 128], of waveforms [N, samples] of 16 kHz in [-1, 1]."""
    s = spectrogram(jnp.pad(waves, ((0, 0), (0, max(0, SHORTEST - waves.shape[1])))))
    times = s.shape[1] // FRAMES
    parts = s[:, : times * FRAMES].reshape(-1, FRAMES, BANDS, 1)
    return {"features": network(getter(weights), parts).reshape(len(waves), times, -1).mean(1)}


def spectrogram(waves: Array) -> Array:
    """Equation (1), [N, frames, BANDS]."""
    count = 1 + (waves.shape[1] - WINDOW) // HOP
    rows = HOP * np.arange(count)[:, None] + np.arange(WINDOW)[None]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    size = jnp.abs(jnp.fft.rfft(waves[:, rows] * window[None, None], FFT))
    return jnp.log(jnp.matmul(size, jnp.asarray(bands(), jnp.float32), precision="highest") + 0.01)


def bands() -> np.ndarray:
    """M of (1), [FFT / 2 + 1, BANDS]: triangles on the scale 1127 log(1 + f / 700); the mean is in none."""

    def mel(f: np.ndarray | float) -> np.ndarray:
        return 1127 * np.log1p(np.asarray(f) / 700)

    edges = np.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2)
    at = mel(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, None]
    step = edges[1] - edges[0]
    weights = np.maximum(0, 1 - np.abs(at - edges[None, 1:-1]) / step)
    weights[0] = 0
    return weights


def network(get: Get, s: Array) -> Array:
    """Equation (2) of s [N, FRAMES, BANDS, 1]: [N, 128]."""
    h = s
    for width, places in BLOCKS.items():
        for place in places:
            kernel = get(f"features.{place}.weight", width, h.shape[-1], 3, 3)
            h = convolved(h, kernel, padding="SAME")
            h = jax.nn.relu(h + channels(get(f"features.{place}.bias", width), h))
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = h.reshape(len(h), -1)
    h = jax.nn.relu(linear(get, "embeddings.0", h, 4096))
    h = jax.nn.relu(linear(get, "embeddings.2", h, 4096))
    return linear(get, "embeddings.4", h, 128)
