"""Log-mel spectrograms and the way back, in numpy.

    S[t, k] = sum_n w[n] x[t hop + n - window / 2] exp(-2 pi i k n / window),   w a periodic Hann window     (1)
    L[t, j] = log max(1e-5, sum_k M[j, k] |S[t, k]|)                                                        (2)

x is zero outside, so frame t is centred at sample t hop and there are 1 + samples // hop of them. The rows of M are
triangles on Slaney's mel scale (Auditory Toolbox, 1998) of equal area 1 Hz: linear below 1 kHz, logarithmic above.

Back: (2) is solved for |S| >= 0 by multiplicative updates (Lee & Seung 2001), and a signal with these magnitudes is
found by alternating between the two constraints "has these magnitudes" and "is the spectrogram of a signal" (Griffin &
Lim 1984), with the momentum of Perraudin et al. 2013.
"""

from __future__ import annotations

import functools

import numpy as np

FLOOR = 1e-5


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Slaney's scale: 200/3 Hz a mel up to 15 mel = 1000 Hz, from there a factor 6.4 every 27 mel."""
    return np.where(mel < 15, mel * (200 / 3), 1000 * 6.4 ** ((mel - 15) / 27))


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """The inverse of `mel_to_hz`."""
    above = 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    return np.where(np.less(hz, 1000), np.multiply(hz, 3 / 200), above)


@functools.cache
def mel_filters(rate: int, window: int, mels: int) -> np.ndarray:
    """M of equation (2), [mels, window // 2 + 1] float64, read-only; from 0 Hz to half the rate."""
    edges = mel_to_hz(np.linspace(0, hz_to_mel(rate / 2), mels + 2))
    bins = np.fft.rfftfreq(window, 1 / rate)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    filters.setflags(write=False)
    return filters


def stft(x: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Equation (1): [samples] -> complex [frames, window // 2 + 1]."""
    padded = np.zeros(len(x) + window // 2 * 2, x.dtype)
    padded[window // 2 : window // 2 + len(x)] = x
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    return np.fft.rfft(frames * hann(window).astype(x.dtype, copy=False))


def istft(spectrum: np.ndarray, window: int, hop: int, samples: int) -> np.ndarray:
    """[frames, bins] -> [samples], the signal whose `stft` is nearest in squares (Griffin & Lim 1984, equation 6)."""
    frames = np.fft.irfft(spectrum, window) * hann(window)
    x, weight = np.zeros((2, window + hop * (len(frames) - 1)))
    for t, frame in enumerate(frames):
        x[t * hop : t * hop + window] += frame
        weight[t * hop : t * hop + window] += hann(window) ** 2
    x = np.divide(x, weight, out=np.zeros_like(x), where=weight > 1e-8)[window // 2 :]
    return np.pad(x, (0, max(0, samples - len(x))))[:samples]


def log_mel(x: np.ndarray, rate: int, window: int, hop: int, mels: int) -> np.ndarray:
    """Equation (2): [samples] -> [frames, mels], natural logarithm; float32 or float64, as x is."""
    filters = mel_filters(rate, window, mels).astype(x.dtype, copy=False)
    return np.log(np.maximum(product(np.abs(stft(x, window, hop)), filters.T), FLOOR))


def invert_log_mel(log_mels: np.ndarray, rate: int, window: int, hop: int, samples: int, steps: int = 60) -> np.ndarray:
    """A signal [samples] whose `log_mel` is near [frames, mels]. The same input always gives the same signal."""
    filters = mel_filters(rate, window, log_mels.shape[1])
    mel = np.exp(log_mels) * (log_mels > np.log(FLOOR) + 1e-5)  # what is at the floor, rounded to float32, is silence
    wanted = product(mel, filters)
    magnitude = wanted + 1e-12
    for _ in range(steps):
        magnitude *= wanted / (product(product(magnitude, filters.T), filters) + 1e-12)
    return griffin_lim(magnitude, window, hop, samples, steps)


def griffin_lim(magnitude: np.ndarray, window: int, hop: int, samples: int, steps: int = 60) -> np.ndarray:
    """A signal [samples] whose |stft| is near `magnitude` [frames, bins]."""
    # Any fixed phases will do to begin with; random ones have no peaks, as all zeros would have.
    phase = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape))
    previous = 0.0
    for _ in range(steps):
        consistent = stft(istft(magnitude * phase, window, hop, samples), window, hop)
        accelerated = consistent + 0.99 * (consistent - previous)
        phase = accelerated / np.maximum(np.abs(accelerated), 1e-12)
        previous = consistent
    return istft(magnitude * phase, window, hop, samples)


@functools.cache
def hann(window: int) -> np.ndarray:
    """The periodic Hann window, [window] float64, read-only."""
    w = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    w.setflags(write=False)
    return w


def product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """rows @ matrix, one row at a time.

    As a whole it is just large enough for BLAS to share it among threads, which wait for one another far longer than
    they work: up to fifty times as long as this, on a machine that does anything else.
    """
    return (rows[:, None] @ matrix)[:, 0]
