"""Distances between two sets of points by their shadows on lines, where optimal transport is sorting.

    W_p^p = mean_u int_0^1 |F_u^-1(q) - G_u^-1(q)|^p dq,   F_u, G_u those of u.x and u.y, |u| = 1            (1)
    MIND  = 3 d W_2^2                                                                                       (2)

(1): Rabin et al. 2012. (2) is scaled so that a shift of all coordinates by s gives 3 d s^2 (arXiv:2605.06797). For
pictures, as in Karras et al. 2018 (arXiv:1710.10196): W_1 of patches of each level of a Laplacian pyramid, every
channel brought to mean 0 and deviation 1 over all patches of a set.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


def directions(count: int, d: int, seed: int) -> np.ndarray:
    """Unit vectors [count, d], uniform on the sphere."""
    u = np.random.default_rng(seed).normal(size=(count, d))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def sliced_power(x: np.ndarray, y: np.ndarray, u: np.ndarray, p: int = 2) -> float:
    """Equation (1), W_p^p, of x [n, d] and y [m, d], any n and m, over the directions u [k, d]."""
    x, y = (np.sort(np.asarray(z, np.float64) @ u.T, axis=0) for z in (x, y))
    n, m = len(x), len(y)
    # Both quantile functions are constant between multiples of 1 / n and of 1 / m; in whole numbers nothing is rounded.
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    widths, starts = np.diff(edges) / (n * m), edges[:-1]
    return float(np.mean(widths @ np.abs(x[starts // m] - y[starts // n]) ** p))


def mind(x: np.ndarray, y: np.ndarray, u: np.ndarray) -> float:
    """Equation (2)."""
    return 3 * x.shape[1] * sliced_power(x, y, u, 2)


def laplacian_pyramid(images: np.ndarray, levels: int) -> list[np.ndarray]:
    """Pictures [n, h, w, c] as differences between their sizes, from the largest; the last is what is left."""
    pyramid, image = [], np.asarray(images, np.float64)
    for _ in range(levels - 1):
        smaller = blurred(image)[:, ::2, ::2]
        pyramid.append(image - enlarged(smaller, image.shape))
        image = smaller
    return [*pyramid, image]


def blurred(images: np.ndarray) -> np.ndarray:
    """With a binomial filter of five pixels; beyond the edge lies the mirror image."""
    rows = ndimage.correlate1d(images, BINOMIAL, axis=1, mode="mirror")
    return ndimage.correlate1d(rows, BINOMIAL, axis=2, mode="mirror")


def enlarged(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Twice as large, to `shape`: zeros in between, then the filter."""
    wide = np.zeros(shape)
    wide[:, ::2, ::2] = images
    return 4 * blurred(wide)


def patches(images: np.ndarray, top: np.ndarray, left: np.ndarray, size: int) -> np.ndarray:
    """The patches at (top, left) [n, k] of pictures [n, h, w, c], [n k, size size c], normalised by channel."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    found = windows[np.arange(len(images))[:, None], top, left]  # [n, k, c, size, size]
    found = found.reshape(-1, *found.shape[2:]).transpose(0, 2, 3, 1)
    found = found - found.mean((0, 1, 2))
    return (found / np.maximum(found.std((0, 1, 2)), 1e-12)).reshape(len(found), -1)


@dataclasses.dataclass(frozen=True)
class PyramidDistance:
    """(1) with p = 1 of patches of two sets of pictures [n, h, w, c], level by level from the largest, times 1000.

    Attributes:
        smallest: the size at which the pyramid ends.
        size: of a patch; of a level that is smaller, the whole picture.
        count: of patches of each picture.
        directions: of which every level has its own.
    """

    smallest: int = 16
    size: int = 7
    count: int = 128
    directions: int = 512

    def __call__(self, x: np.ndarray, y: np.ndarray, seed: int) -> list[float]:
        levels = 1 + max(0, int(np.log2(min(x.shape[1:3]) / self.smallest)))
        rng, values = np.random.default_rng(seed), []
        for a, b in zip(laplacian_pyramid(x, levels), laplacian_pyramid(y, levels), strict=True):
            cut = [self._cut(level, rng) for level in (a, b)]
            u = directions(self.directions, cut[0].shape[1], int(rng.integers(2**31)))
            values.append(1000 * sliced_power(*cut, u, 1))
        return values

    def _cut(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Random patches of one level."""
        n, h, w, _ = images.shape
        size = min(self.size, h, w)
        top, left = (rng.integers(space - size + 1, size=(n, self.count)) for space in (h, w))
        return patches(images, top, left, size)
