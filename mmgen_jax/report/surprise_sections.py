"""Surprise as HTML: words and classes that are coloured by it, and maps of what lies on a grid."""

from __future__ import annotations

import html
import math

import numpy as np

from mmgen_jax.evals.texts import written
from mmgen_jax.report.contents import Contents
from mmgen_jax.report.parts import card, row, section, table, true
from mmgen_jax.report.surprise import pieces

FULL = 5.0  # nats with the full colour
SIDE, TALL = 14, 84  # of a cell, at most, and of a map, in pixels


def expected(contents: Contents) -> str:
    """For some test examples, each modality with its surprise; nothing if the model does not say."""
    cards = []
    for i in range(min(map(len, contents.surprises.values()), default=0)):
        rows = [
            row(
                html.escape(name),
                [true(contents, name, i), painted(contents, name, i), f"<td>{nats[i].sum():.1f}</td>"],
            )
            for name, nats in contents.surprises.items()
            if contents.real.present[name][i]
        ]
        cards.append(card(table(["", "test example", "how little of it was expected", "nats in all"], rows, "grid")))
    text = (
        "Each modality of a test example was read symbol by symbol, with all others given. The less probable a "
        f"symbol was to the model, the more it is coloured: fully at {FULL:g} nats, a chance of 1 in "
        f"{math.exp(FULL):.0f}. ¶ is the end of a text."
    )
    return section("What it expects", "".join(cards), text) if cards else ""


def painted(contents: Contents, name: str, i: int) -> str:
    """A table cell of the surprise of a modality of example i."""
    modality, nats = contents.modalities[name], contents.surprises[name][i]
    x = contents.real.values[name][i]
    if written(modality):
        words = "".join(marked(text or "¶", value) for text, value in pieces(modality, x, nats))
        return f'<td><span class="text nats">{words}</span></td>'
    if nats.ndim == 0:
        return f'<td><span class="class nats">{marked(str(modality.decode(x)), float(nats))}</span></td>'
    return f"<td>{heat_map(nats)}</td>"


def marked(text: str, nats: float) -> str:
    """A word on the colour of its surprise."""
    colour = f"background: rgb(var(--heat) / {0.62 * share(nats):.2f})"
    return f'<span style="{colour}" title="{nats:.2f}">{html.escape(text)}</span>'


def heat_map(nats: np.ndarray) -> str:
    """One value for each cell of a row, of a grid, or of one grid after the other, as SVG."""
    maps = nats.reshape((1,) * (3 - nats.ndim) + nats.shape)
    count, rows, columns = maps.shape
    cells = "".join(
        f'<rect x="{k * (columns + 1) + x}" y="{y}" width="1" height="1" opacity="{0.06 + 0.94 * share(value):.2f}"/>'
        for (k, y, x), value in np.ndenumerate(maps)
    )
    wide = count * (columns + 1) - 1
    size = f"width: {wide * min(SIDE, TALL / rows):.0f}px"
    return f'<svg class="nats" style="{size}; margin: auto" viewBox="0 0 {wide} {rows}" role="img">{cells}</svg>'


def share(nats: float) -> float:
    """Of the full colour."""
    return min(nats / FULL, 1.0)
