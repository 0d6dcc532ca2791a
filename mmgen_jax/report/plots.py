"""Curves and waveforms as inline SVG. Colours and fonts come from the style sheet, so they follow light and dark."""

from __future__ import annotations

import html
import io
import math
import wave
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 330, 46, 8, 8, 22  # of a curve, in units of the viewBox
COLOURS = 10  # in which groups are drawn, .c0 to .c9 of the style sheet


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


def scatter(groups: Mapping[str, np.ndarray], others: np.ndarray, frame: np.ndarray, width: int = WIDTH) -> str:
    """Points [N, 2] of each group in a colour of its own and with its name, and all other points, as SVG.

    frame: the lower and the upper corner [2, 2] of what is shown; points beyond it stand at the edge. A unit is as long
    upwards as it is to the right.
    """
    middle, side = frame.mean(0), np.maximum(1.1 * (frame[1] - frame[0]), 1e-6)
    side = np.maximum(side, side.max() / 2)  # no strip, however flat the points lie
    scale, height = width / side[0], width * side[1] / side[0]

    def place(points: np.ndarray) -> np.ndarray:
        return np.clip((points - middle) * (scale, -scale) + (width / 2, height / 2), 3, (width - 3, height - 3))

    (across, down), places = place(np.zeros(2)), {name: place(points) for name, points in groups.items()}
    axes = f'<path class="axis" d="M0 {down:.1f}H{width}M{across:.1f} 0V{height:.1f}"/>'
    drawn = "".join(dots(points, f"c{i}") for i, points in enumerate(places.values()))
    drawn = dots(place(others), "rest" if groups else "") + drawn + titles(places, width)
    return f'<svg viewBox="0 0 {width} {height:.0f}" role="img">{axes}{drawn}</svg>'


def dots(places: np.ndarray, kind: str) -> str:
    """Places [N, 2] as lines of no length: their round ends are dots, in a tenth of what circles would take."""
    lines = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places)
    return f'<path class="dots {kind}" d="{lines}"/>' if lines else ""


def titles(places: Mapping[str, np.ndarray], width: int) -> str:
    """The name of each group a little above its middle, unless it would lie upon one that is there already."""
    drawn, taken = [], []
    for name, points in places.items():
        if not len(points):
            continue
        half = 4 * len(name) + 2
        x, y = np.median(points, axis=0)
        x, y = np.clip(x, half, max(width - half, half)), max(y - 6, 12)
        if all(abs(x - a) > half + b or abs(y - c) > 14 for a, c, b in taken):
            taken.append((x, y, half))
            drawn.append(f'<text class="name" x="{x:.1f}" y="{y:.1f}">{html.escape(name)}</text>')
    return "".join(drawn)


def waveform(wav: bytes, bars: int = 56) -> str:
    """The loudness of a 16-bit WAV file along its time, as SVG."""
    with wave.open(io.BytesIO(wav)) as file:
        samples = np.abs(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float))
    peaks = np.array([part.max(initial=0) for part in np.array_split(samples, bars)])
    heights = 1 + 29 * peaks / max(peaks.max(), 1)
    boxes = "".join(f"M{3 * i} {16 - h / 2:.1f}h2v{h:.1f}h-2z" for i, h in enumerate(heights))
    return f'<svg viewBox="0 0 {3 * bars} 32" aria-hidden="true"><path class="wave" d="{boxes}"/></svg>'
