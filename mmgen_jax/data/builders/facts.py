"""What is said of a digit is measured: stroke, width and slant of its picture, direction of its motion.

Captions are written from these measures and parsed back into them, so a model's text, picture and clip can be checked
against one another without a judge. With grey values x (background removed), their mean position and covariance c:

    thickness = 2 sum(x) / TV(x)              a stroke of length l, width w: area w l, total variation 2 l       (1)
    slope     = -c_xy / c_yy                  the shear that standing the digit upright would undo               (2)
    width     = sqrt(12 (c_xx - c_xy^2/c_yy)) of the bar that spreads as much as the digit without its slant     (3)
    direction = the one of eight that is nearest to the way of the centre of mass over the first frames          (4)

(1) is unchanged by contrast and, as long as the stroke keeps its height, by blur. The thresholds are near the
terciles of the 5,000 digits.
"""

from __future__ import annotations

import math
import re

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Clockwise on the screen from the right, 45 degrees each: rows grow downwards.
DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
FREE_FRAMES = 3  # the frames from which a direction is measured: no bounce before the last of them

THICKNESS = ((2.1, "thin"), (2.5, "medium"), (math.inf, "thick"))  # pixels
SLANT = ((0.0, "left"), (0.25, "upright"), (math.inf, "right"))  # columns to the right per row up
WIDTH = ((10.8, "narrow"), (13.5, "normal"), (math.inf, "wide"))  # pixels

# fact -> value -> the ways to say it
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "digit": {word: (word,) for word in DIGITS},
    "thickness": {"thin": ("thin", "fine"), "medium": ("medium", "regular"), "thick": ("thick", "bold")},
    "width": {"narrow": ("narrow", "slim"), "normal": ("normal", "usual"), "wide": ("wide", "broad")},
    "slant": {
        "left": ("leaning left", "tilted left"),
        "upright": ("upright", "straight"),
        "right": ("leaning right", "tilted right"),
    },
    "direction": {way: (f"moving {way}", f"going {way}") for way in DIRECTIONS},
}
# The article stands before words of `thickness` and `width` only: none of them needs "an".
PHRASINGS = (
    "a {thickness}, {width} {digit}, {slant}, {direction}.",
    "{slant}, a {thickness} {width} {digit} {direction}.",
    "the {digit} is {thickness}, {width}, {slant}, {direction}.",
    "{direction}, a {width}, {thickness} {digit}, {slant}.",
    "{thickness}, {width}, {slant}, the {digit} is {direction}.",
    "{digit}, {width}, {thickness}, {slant}, {direction}.",
    "{direction} and {slant}, a {thickness}, {width} {digit}.",
)
_PLAIN = (phrasing.format(**dict.fromkeys(WORDS, "")) for phrasing in PHRASINGS)
_WAYS = (way for table in WORDS.values() for ways in table.values() for way in ways)
# Every word and mark that a caption is made of.
VOCABULARY = tuple(sorted(set(re.findall(r"\w+|[,.]", " ".join((*_PLAIN, *_WAYS))))))


def image_facts(image: np.ndarray) -> dict[str, str]:
    """Thickness, width and slant of a digit, equations (1) to (3).

    image: [H, W] or [H, W, C], uint8 or floats in [0, 1]. Nothing can be said of an empty picture: {}.
    """
    x = _ink(_grey(image, 2))
    if x is None:
        return {}
    _, _, c_yy, c_xy, c_xx = _moments(x)
    padded = np.pad(x, 1)
    variation = np.hypot(np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1]).sum()
    c_yy = max(c_yy, 1 / 12)  # of a single row
    width = math.sqrt(12 * max(c_xx - c_xy**2 / c_yy, 0))
    return {
        "thickness": _class(2 * x.sum() / variation, THICKNESS),
        "width": _class(width, WIDTH),
        "slant": _class(-c_xy / c_yy, SLANT),
    }


def video_facts(video: np.ndarray) -> dict[str, str]:
    """The direction of motion, equation (4).

    video: [T, H, W] or [T, H, W, C], uint8 or floats in [0, 1]. {} if nothing is seen or it moves less than a pixel.
    """
    frames = _grey(video, 3)
    first, last = _ink(frames[0]), _ink(frames[min(FREE_FRAMES, len(frames)) - 1])
    if first is None or last is None:
        return {}
    down, right = np.subtract(_moments(last)[:2], _moments(first)[:2])
    if math.hypot(down, right) < 1:
        return {}
    return {"direction": DIRECTIONS[round(math.atan2(down, right) / (math.pi / 4)) % 8]}


def phrase(facts: dict[str, str], rng: np.random.Generator) -> str:
    """One sentence of at most 63 characters (a-z, space, comma, full stop) that states all five facts."""
    said = {fact: ways[facts[fact]][rng.integers(len(ways[facts[fact]]))] for fact, ways in WORDS.items()}
    return PHRASINGS[rng.integers(len(PHRASINGS))].format(**said)


def parse(text: str) -> dict[str, str]:
    """The facts a text states: the inverse of `phrase`. What is not said, or said in two ways, is left out."""
    found = {fact: {_MEANING[fact][way] for way in _PATTERN[fact].findall(text.lower())} for fact in WORDS}
    return {fact: values.pop() for fact, values in found.items() if len(values) == 1}


_MEANING = {fact: {way: value for value, ways in table.items() for way in ways} for fact, table in WORDS.items()}
# Longest first, so that "moving up left" is not read as "moving up".
_PATTERN = {
    fact: re.compile(r"\b(?:" + "|".join(sorted(meaning, key=len, reverse=True)) + r")\b")
    for fact, meaning in _MEANING.items()
}


def _grey(x: np.ndarray, ndim: int) -> np.ndarray:
    """As floats in [0, 1], channels averaged away."""
    x = np.asarray(x)
    grey = x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
    return np.nan_to_num(grey if x.ndim == ndim else grey.mean(-1))


def _ink(x: np.ndarray) -> np.ndarray | None:
    """x [H, W] without its background (what is under a fifth of the brightest), or None if all of it is dark."""
    return np.where(x > x.max() / 5, x, 0) if x.max() > 0.1 else None


def _moments(x: np.ndarray) -> tuple[float, float, float, float, float]:
    """Mean row, mean column, and the covariances c_yy, c_xy, c_xx of positions weighted by x [H, W]."""
    row, column = np.indices(x.shape)
    total = x.sum()
    mean_y, mean_x = (x * row).sum() / total, (x * column).sum() / total
    dy, dx = row - mean_y, column - mean_x
    return mean_y, mean_x, (x * dy * dy).sum() / total, (x * dx * dy).sum() / total, (x * dx * dx).sum() / total


def _class(value: float, classes: tuple[tuple[float, str], ...]) -> str:
    return next(name for limit, name in classes if value <= limit)
