"""Sound, mono: a waveform, float32 [samples, 1] in [-1, 1], or its standardised log-mel spectrogram [frames, mels].

    standardised = (log-mel + 6) / 3                                                            (1)

brings speech to about zero mean and the range from silence (-1.8) to full loudness (about 2.5). The constants are fixed
so that an array means the same sound in every data set.
"""

from __future__ import annotations

import dataclasses
import io
import os
import wave
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmgen_jax.modalities.common import Grid, check_counts, check_parts, check_shape
from mmgen_jax.modalities.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Normal
from mmgen_jax.modalities.spectrogram import invert_log_mel, log_mel, mel_filters
from mmgen_jax.types import Likelihood, Rendering

CENTRE, SPREAD = -6.0, 3.0  # of equation (1)
BANDS = 40  # in which waveforms are compared
LOUDEST = 10.0  # natural log of a mel magnitude, far above full scale: what a network makes may lie beyond


@dataclasses.dataclass(frozen=True)
class Audio(Grid):
    """`Audio(8000, rate=8000)`, a waveform of one second, or `Audio(8000, rate=8000, mels=40)`, a spectrogram.

    rate: samples per second.
    mels: number of mel bands; None for a waveform.
    window, hop: length and distance of the spectrogram's frames, in samples.
    likelihood: Normal or Laplace.
    encoder, decoder, features, fold: as for `Image`, with [B, *shape] for [B, H, W, C].
    patch: duration of one token, in hops; for waveforms too.
    """

    samples: int
    _: dataclasses.KW_ONLY
    rate: int = 16_000
    mels: int | None = None
    window: int = 512
    hop: int = 128
    likelihood: Likelihood = Normal(0.3)
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    features: int = 32
    fold: int = 1
    patch: int = 4

    axes = ("second",)

    def __post_init__(self) -> None:
        check_counts(self, "samples", "rate", "window", "hop", "features", "fold", "patch")
        check_parts(self, unfit=(Bernoulli, Categorical, DiscretizedLogistic))
        if self.window % 2 or self.hop > self.window // 2:
            raise ValueError(
                f"Audio: window must be even and at least twice the hop, not {self.window} with hop={self.hop}."
            )
        if self.mels is None:
            return
        check_counts(self, "mels")
        if not mel_filters(self.rate, self.window, self.mels).any(axis=1).all():
            raise ValueError(
                f"Audio: mels={self.mels} leaves bands without a frequency at window={self.window}, rate={self.rate}: "
                "take fewer mels or a longer window."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.samples, 1) if self.mels is None else (1 + self.samples // self.hop, self.mels)

    @property
    def standard(self) -> tuple[float, float]:
        return (0.0, 0.1) if self.mels is None else (0.0, 1.0)

    @property
    def patches(self) -> tuple[int, ...]:
        return (self.patch * self.hop if self.mels is None else self.patch,)

    @property
    def spacing(self) -> tuple[float, ...]:
        return ((1 if self.mels is None else self.hop) / self.rate,)

    def encode(self, raw: Any) -> np.ndarray:
        """A recording as a model sees it, [*shape] float32.

        raw: the path of a WAV file (mixed to mono, resampled to `rate`), or an array [n] or [n, 1] at `rate`: 16-bit
        values of any signed integer type, or floats in [-1, 1]. A shorter recording is followed by silence; of a longer
        one the middle is kept.

        Raises:
            ValueError: empty; wrong shape, type or range; a file that is no WAV.
            FileNotFoundError: no file at the path.
        """
        x = read_wav(raw, self.rate) if isinstance(raw, str | os.PathLike) else pcm_to_float(np.asarray(raw))
        start = max(0, (len(x) - self.samples) // 2)
        x = x[start : start + self.samples]
        if len(x) < self.samples:
            x = np.pad(x, (0, self.samples - len(x)))
        if self.mels is None:
            return x[:, None]
        return (log_mel(x, self.rate, self.window, self.hop, self.mels) - CENTRE) / SPREAD

    def decode(self, x: Any) -> np.ndarray:
        """[*shape] -> the waveform [samples], float32 in [-1, 1]; a spectrogram's phases are estimated."""
        x = np.nan_to_num(check_shape(self, x).astype(np.float64))
        if self.mels is None:
            signal = x[:, 0]
        else:
            log_mels = np.minimum(x * SPREAD + CENTRE, LOUDEST)
            signal = invert_log_mel(log_mels, self.rate, self.window, self.hop, self.samples)
        return np.clip(signal, -1, 1).astype(np.float32)

    def log_mel(self, x: Any) -> np.ndarray:
        """[*shape] -> its log-mel spectrogram [frames, mels], natural logarithm; of a waveform in `BANDS` bands."""
        x = check_shape(self, x).astype(np.float64)
        if self.mels is not None:
            return x * SPREAD + CENTRE
        return log_mel(x[:, 0], self.rate, self.window, self.hop, BANDS)

    def render(self, x: Any) -> Rendering:
        """A 16-bit mono WAV file."""
        pcm = np.clip(np.round(self.decode(x) * 32768), -32768, 32767).astype("<i2")
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(self.rate)
            out.writeframes(pcm.tobytes())
        return Rendering("wav", file.getvalue())


def pcm_to_float(x: np.ndarray) -> np.ndarray:
    """[n] or [n, 1] of 16-bit integers or floats in [-1, 1] -> float32 [n]. Raises ValueError for anything else."""
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"Audio: a recording must be an array [n] or [n, 1] with n > 0, not {list(x.shape)}.")
    if np.issubdtype(x.dtype, np.signedinteger):
        x = x.astype(np.float32) / 32768  # exact for 16 bits
    elif not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"Audio: samples must be 16-bit integers or floats in [-1, 1], not {x.dtype}.")
    size = float(np.abs(x).max())
    if not size <= 1:  # NaN too
        raise ValueError(
            f"Audio: samples must be 16-bit integers or floats in [-1, 1], not up to {size:.4g} times that."
        )
    return x.astype(np.float32)


def read_wav(path: str | os.PathLike[str], rate: int) -> np.ndarray:
    """The mono mix of a WAV file of 8, 16, 24 or 32 bits, resampled to `rate`: float32 [n] in [-1, 1]."""
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, file_rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is not a WAV file of whole numbers: {error}.") from error
    # Put the bytes of each sample at the top of 32 bits, so that one scale fits every width; 8 bits are unsigned.
    values = np.zeros((len(data) // width, 4), np.uint8)
    values[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width) ^ (0x80 if width == 1 else 0)
    x = (values.view("<i4")[:, 0] / 2**31).reshape(-1, channels).mean(axis=1)
    return pcm_to_float(x) if file_rate == rate else resample(pcm_to_float(x), file_rate, rate)


def resample(x: np.ndarray, old: int, new: int) -> np.ndarray:
    """[n] at `old` samples per second -> [about n new / old], without aliases, clipped to [-1, 1]."""
    from scipy.signal import resample_poly  # takes half a second to import

    return np.clip(resample_poly(x, new, old), -1, 1)
