"""Curves and waveforms as inline SVG. Colours and fonts come from the style sheet, so they follow light and dark."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Sequence

import numpy as np

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 330, 46, 8, 8, 22  # of a curve, in units of the viewBox


def curve(steps: Sequence[int], values: Sequence[float], width: int = WIDTH, height: int = 150) -> str:
    """`values` over `steps`, as SVG.

    Of more than 20 values the extreme two in a hundred may leave the frame: the first steps of a training would
    otherwise flatten all the rest.
    """
    x, y = np.asarray(steps, float), np.asarray(values, float)
    low, high = np.quantile(y, (0.02, 0.98)) if len(y) > 20 else (y.min(), y.max())
    low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
    inner, tall = width - LEFT - RIGHT, height - TOP - BOTTOM
    across = LEFT + inner * (x - x[0]) / max(x[-1] - x[0], 1)
    down = TOP + tall * (high - np.clip(y, low, high)) / (high - low)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
    marks = "".join(
        f'<path class="axis" d="M{LEFT} {v:.1f}H{width - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{v + 4:.1f}" text-anchor="end">{short(tick)}</text>'
        for tick in ticks(low, high)
        for v in [TOP + tall * (high - tick) / (high - low)]
    )
    ends = (
        f'<text x="{LEFT}" y="{height - 6}">{short(x[0])}</text>'
        f'<text x="{width - RIGHT}" y="{height - 6}" text-anchor="end">step {short(x[-1])}</text>'
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">{marks}{ends}<polyline class="curve" points="{points}"/></svg>'
    )


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from low to high, roughly `about` of them: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short(value: float) -> str:
    """A number in a few characters: 0.031, 12.5, 2,000, 1.2e+07."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.3g}"


def waveform(wav: bytes, bars: int = 56) -> str:
    """The loudness of a 16-bit WAV file along its time, as SVG."""
    with wave.open(io.BytesIO(wav)) as file:
        samples = np.abs(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float))
    peaks = np.array([part.max(initial=0) for part in np.array_split(samples, bars)])
    heights = 1 + 29 * peaks / max(peaks.max(), 1)
    boxes = "".join(f"M{3 * i} {16 - h / 2:.1f}h2v{h:.1f}h-2z" for i, h in enumerate(heights))
    return f'<svg viewBox="0 0 {3 * bars} 32" aria-hidden="true"><path class="wave" d="{boxes}"/></svg>'
