"""How far sounds are from one another.

    d(x, y) = 20 / ln 10  mean_t sqrt(mean_j (x_tj - y_tj)^2)            in dB, t the frames and j the mel bands  (1)

of log-mel spectrograms x, y (natural logarithms of magnitudes): the log-spectral distance of Gray and Markel 1976, in
mel bands, as vocoders are compared. It hears every difference in time, so a word said a little later is far away.
"""

from __future__ import annotations

import numpy as np

DECIBELS = 20 / np.log(10)


def log_mel_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Equation (1), [n], of spectrograms [n, frames, mels].

    Raises:
        ValueError: they are of different shape.
    """
    if x.shape != y.shape:
        raise ValueError(f"spectrograms must be of one shape, not {list(x.shape)} and {list(y.shape)}")
    squares = (np.asarray(x, np.float64) - y) ** 2
    return DECIBELS * np.sqrt(squares.mean(axis=2)).mean(axis=1)
