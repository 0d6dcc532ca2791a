"""Likeness of pictures, pair by pair.

    PSNR = 10 log10(range^2 / mean (x - y)^2)                                                                   (1)
    SSIM = mean l c,  l = (2 m_x m_y + C_1) / (m_x^2 + m_y^2 + C_1),  c = (2 s_xy + C_2) / (s_x^2 + s_y^2 + C_2)  (2)
    MS-SSIM = (mean l c)_S^w_S  prod_{i < S} max(0, (mean c)_i)^w_i              of pictures halved i times      (3)

(2): Wang et al. 2004, with means and (co)variances under a window that lies wholly inside, C_1 = (0.01 range)^2 and
C_2 = (0.03 range)^2; (3): Wang et al. 2003, by channel. Its five scales need pictures of more than 160 pixels. Of
smaller ones we take as many scales as the window fits, with their published weights scaled up to a sum of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def gaussian_window(size: int = 11, deviation: float = 1.5) -> np.ndarray:
    """[size], of sum 1."""
    window = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * deviation**2))
    return window / window.sum()


def psnr(x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Equation (1), [n] in dB, of pictures [n, ...] whose values span `scale`; infinite where they are the same."""
    error = np.mean((np.asarray(x, np.float64) - y) ** 2, axis=tuple(range(1, x.ndim)))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(scale**2 / error)


def ssim(
    x: np.ndarray, y: np.ndarray, scale: float = 1.0, window: np.ndarray | None = None, unbiased: bool = False
) -> np.ndarray:
    """Equation (2), [n], of pictures [n, h, w, c] whose values span `scale`; the mean over positions and channels.

    window: along either axis, by default Gaussian, of 11 pixels or as many as there are.
    unbiased: (co)variances divide by one less than the number of pixels, for windows of equal weights.

    Raises:
        ValueError: a picture is smaller than the window.
    """
    window = gaussian_window(min(11, *x.shape[1:3])) if window is None else window
    both, _ = parts(x, y, scale, window, unbiased)
    return both.mean(-1)


def ms_ssim(
    x: np.ndarray,
    y: np.ndarray,
    scale: float = 1.0,
    window: np.ndarray | None = None,
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Equation (3), [n], of pictures [n, h, w, c] whose values span `scale`; the mean over channels.

    weights: of the scales from the largest picture; None: as many of the published ones as the window fits.

    Raises:
        ValueError: a picture is smaller than the window, or becomes so.
    """
    window = gaussian_window(min(11, *x.shape[1:3])) if window is None else window
    if weights is None:
        count = 1 + int(np.log2(min(x.shape[1:3]) / len(window)))
        weights = np.asarray(WEIGHTS[:count]) / sum(WEIGHTS[:count])
    product: np.ndarray | float = 1.0
    for i, weight in enumerate(weights):
        both, contrast = parts(x, y, scale, window, False)
        last = i == len(weights) - 1
        product = product * np.maximum(both if last else contrast, 0) ** weight
        x, y = halved(x), halved(y)
    return np.mean(product, axis=-1)


def parts(
    x: np.ndarray, y: np.ndarray, scale: float, window: np.ndarray, unbiased: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The means over positions of l c and of c, [n, channels] each."""
    if x.shape != y.shape or min(x.shape[1:3]) < len(window):
        raise ValueError(
            f"pictures must be of one shape, at least {len(window)} pixels wide, not {x.shape[1:]} and {y.shape[1:]}"
        )
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    factor = len(window) ** 2 / (len(window) ** 2 - 1) if unbiased else 1.0
    mean_x, mean_y = under(x, window), under(y, window)
    var_x, var_y = (factor * (under(z * z, window) - m * m) for z, m in ((x, mean_x), (y, mean_y)))
    cov = factor * (under(x * y, window) - mean_x * mean_y)
    c1, c2 = (0.01 * scale) ** 2, (0.03 * scale) ** 2
    contrast = (2 * cov + c2) / (var_x + var_y + c2)
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (light * contrast).mean((1, 2)), contrast.mean((1, 2))


def under(x: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The weighted means of [n, h, w, c] wherever the window lies inside."""
    for axis in (1, 2):
        x = ndimage.correlate1d(x, window, axis=axis)
        first = len(window) // 2
        x = x.take(range(first, x.shape[axis] - len(window) + 1 + first), axis=axis)
    return x


def halved(x: np.ndarray) -> np.ndarray:
    """The means of 2 x 2 pixels; around an odd size lies a zero on both sides, as in the published code."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *((size % 2,) * 2 for size in x.shape[1:3]), (0, 0)))
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return (x[:, :h:2, :w:2] + x[:, 1:h:2, :w:2] + x[:, :h:2, 1:w:2] + x[:, 1:h:2, 1:w:2]) / 4
