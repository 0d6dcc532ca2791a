"""Tables of discrete diffusion (numpy, float64) and the steps of them that a sampler visits.

linear          beta_i from beta_0 to beta_1 in equal steps (Ho et al. 2020, arXiv:2006.11239)             (1)
scaled_linear   sqrt(beta_i) in equal steps (Rombach et al. 2022, arXiv:2112.10752)                        (2)
cosine          beta_i = min(1 - f((i + 1) / N) / f(i / N), 0.999), f(u) = cos^2((u + 0.008) / 1.008 pi / 2)
                (Nichol and Dhariwal 2021, arXiv:2102.09672)                                               (3)
abar_i = prod_{j <= i} (1 - beta_j)                                                                        (4)
zero terminal SNR: s = sqrt(abar), s <- (s - s_N) s_1 / (s_1 - s_N), abar = s^2
                (Lin et al. 2024, arXiv:2305.08891)                                                        (5)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np

Schedule = Literal["linear", "scaled_linear", "cosine"]
Spacing = Literal["leading", "trailing", "linspace"]
ENDS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}  # as published
STEEPEST = 0.999


def betas(schedule: Schedule, steps: int = 1000, ends: tuple[float, float] | None = None) -> np.ndarray:
    """Equations (1) to (3), [steps].

    ends: the first and last beta of equations (1) and (2); as published where it is None.
    """
    require_one_of("betas", "schedule", schedule, get_args(Schedule))
    if schedule == "cosine":
        bars = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - bars[1:] / bars[:-1], STEEPEST)
    first, last = ENDS[schedule] if ends is None else ends
    if schedule == "linear":
        return np.linspace(first, last, steps)
    return np.linspace(first**0.5, last**0.5, steps) ** 2


def alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """Equation (4), the share of variance that is still data after each step."""
    return np.cumprod(1 - betas)


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Equation (5): betas of the same shape after whose last step nothing is left of the data."""
    root = np.sqrt(alphas_cumprod(betas))
    bars = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return 1 - bars / np.concatenate([[1.0], bars[:-1]])


def timesteps(spacing: Spacing, n: int, steps: int = 1000, offset: int = 0) -> np.ndarray:
    """The n of `steps` indices at which a sampler evaluates, descending (table 2 of arXiv:2305.08891).

    offset: what is added to each index of "leading".
    """
    require_one_of("timesteps", "spacing", spacing, get_args(Spacing))
    if not 1 <= n <= steps:
        raise ValueError(f"timesteps: n is {n}, but must be between 1 and steps = {steps}")
    if spacing == "leading":
        return np.arange(n)[::-1] * (steps // n) + offset
    if spacing == "trailing":
        return np.round(steps - np.arange(n) * (steps / n)).astype(int) - 1
    return np.round(np.linspace(0, steps - 1, n))[::-1].astype(int)


def require_one_of(owner: str, field: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises ValueError unless `value` is one of the names that are allowed."""
    if value not in tuple(allowed):
        raise ValueError(f"{owner}: {field} is {value!r}, but must be one of {', '.join(allowed)}")
