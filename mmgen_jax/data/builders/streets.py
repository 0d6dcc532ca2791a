"""Streets: made-up road scenes, of which the label map is known exactly, by day and by night.

    map      sky above a horizon, houses that stand on it, a road to a point on it, pavement beside, cars on the road
    photo    the colour of each part, another one in every scene for houses and cars, with windows, shade and grain
    night    the same scene: dark, blue, and with light in its windows

Nothing is stored: a scene is put together whenever it is asked for, and what is in it follows from its number. It is
there to try translation on where no real set is prepared, such as `cityscapes` of tensorflow-datasets, and to test it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mmgen_jax.data.source import check_split
from mmgen_jax.types import Source

CLASSES = ("sky", "house", "pavement", "road", "car")
SKY, HOUSE, PAVEMENT, ROAD, CAR = range(len(CLASSES))
PARTS = ("map", "photo", "night")
COLOURS = np.array([[0.55, 0.75, 0.95], [0, 0, 0], [0.6, 0.55, 0.5], [0.3, 0.3, 0.33], [0, 0, 0]])
NIGHT, LAMP = np.array([0.2, 0.22, 0.4]), np.array([1.0, 0.85, 0.4])


@dataclasses.dataclass(frozen=True)
class Streets:
    """Scenes of {"map": int32 [side, side], "photo" and "night": uint8 [side, side, 3]}.

    side: of a picture, in pixels.
    parts: which of the three are in an example.
    train, test: the number of scenes in each split.
    seed: which draw.
    """

    side: int = 64
    parts: tuple[str, ...] = PARTS
    train: int = 4_000
    test: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        for field, least in (("side", 8), ("train", 1), ("test", 1), ("seed", 0)):
            value = getattr(self, field)
            if type(value) is not int or value < least:
                raise ValueError(f"Streets: {field} must be an integer of at least {least}, not {value!r}.")
        if not self.parts or set(self.parts) - set(PARTS):
            raise ValueError(f"Streets: parts must be some of {PARTS}, not {self.parts!r}.")

    def source(self, split: str) -> Source:
        """Raises ValueError if there is no such split."""
        check_split(self, split)
        return Scenes(self, split)


class Scenes:
    """A Source of one split."""

    def __init__(self, data: Streets, split: str) -> None:
        self.data, self.split = data, split

    def __len__(self) -> int:
        return getattr(self.data, self.split)

    def __getitem__(self, i: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.data.seed, self.split == "test", int(range(len(self))[i])))
        objects, cut = laid_out(self.data.side, rng)
        whole = {"map": cut, **painted(objects, cut, rng)}
        return {name: whole[name] for name in self.data.parts}


def laid_out(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which object each pixel belongs to, counted from 0, and its class: int32 [side, side] each."""
    row, column = (np.indices((side, side)) + 0.5) / side
    horizon, far = rng.uniform(0.35, 0.55), rng.uniform(0.3, 0.7)
    near = np.where(row > horizon, (row - horizon) / (1 - horizon), 0)  # 0 at the horizon, 1 at the lower edge
    cut = np.where(row > horizon, np.where(np.abs(column - far) < 0.05 + 0.45 * near, ROAD, PAVEMENT), SKY)
    objects, edge, count = cut.copy(), 0.0, len(CLASSES)

    def put(where: np.ndarray, kind: int) -> None:
        nonlocal count
        cut[where], objects[where], count = kind, count, count + 1

    while edge < 1:
        width, top = rng.uniform(0.1, 0.3), horizon * rng.uniform(0.2, 1)
        put((column >= edge) & (column < edge + width) & (row >= top) & (row <= horizon), HOUSE)
        edge += width + rng.choice([0, 0.08])
    for depth in np.sort(rng.uniform(0.2, 0.9, rng.integers(0, 4))):  # near ones stand before those far away
        middle, bottom = far + rng.uniform(-0.3, 0.3) * depth, horizon + depth * (1 - horizon)
        half, height = 0.03 + 0.1 * depth, 0.04 + 0.16 * depth
        put((np.abs(column - middle) < half) & (row < bottom) & (row > bottom - height), CAR)
    return objects.astype(np.int32), cut.astype(np.int32)


def painted(objects: np.ndarray, cut: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The scene by day and by night, uint8 [side, side, 3] each."""
    side = len(cut)
    own = rng.uniform(0.25, 0.95, (objects.max() + 1, 3))  # the colours of houses and cars
    colour = np.where(np.isin(cut, (HOUSE, CAR))[..., None], own[objects], COLOURS[cut])
    row, column = np.indices(cut.shape)
    pane = max(2, side // 16)
    window = (cut == HOUSE) & (row % (2 * pane) >= pane) & (column % (2 * pane) >= pane)
    shade = 1 - 0.3 * row / side + rng.normal(0, 0.03, cut.shape)
    day = np.where(window[..., None], 0.5 * colour, colour) * shade[..., None] * rng.uniform(0.8, 1)
    lit = window & (rng.random((side // (2 * pane) + 1,) * 2)[row // (2 * pane), column // (2 * pane)] < 0.6)
    night = np.where(lit[..., None], LAMP, day * NIGHT)
    return {name: np.round(255 * np.clip(x, 0, 1)).astype(np.uint8) for name, x in (("photo", day), ("night", night))}
