"""Evidence as HTML: beside each example, which of its values speak for the class and which against it."""

from __future__ import annotations

import html
import io

import numpy as np

from mmgen_jax.report.cells import uri
from mmgen_jax.report.contents import Contents
from mmgen_jax.report.evidence import flat
from mmgen_jax.report.parts import card, row, section, table, true

FOR, AGAINST = (255, 150, 60), (80, 150, 255)  # red, green, blue, on black


def evidence(contents: Contents) -> str:
    """Each modality that was given alone, its map, and the nats that it adds up to; nothing if there is none."""
    found = contents.evidence
    if found is None:
        return ""
    cards = []
    for i in range(len(next(iter(found.shares.values())))):
        if not contents.real.present[found.of][i]:  # no true answer is known
            continue
        answer = contents.modalities[found.of].decode(contents.real.values[found.of][i])
        rows = [
            row(html.escape(name), [true(contents, name, i), painted(shares[i]), f"<td>{shares[i].sum():+.1f}</td>"])
            for name, shares in found.shares.items()
            if contents.real.present[name][i]
        ]
        cards.append(card(table([str(answer), "given alone", "what speaks for it", "nats in all"], rows, "grid")))
    text = (
        f"Which values of what is given make the model answer with the true {html.escape(found.of)}: orange ones speak "
        "for it, blue ones against it, by integrated gradients from the mean of some test examples to this one. They "
        "add up to how much more probable the answer becomes. Each map has its own scale."
    )
    return section("What speaks for the answer", "".join(cards), text) if cards else ""


def painted(shares: np.ndarray) -> str:
    """A table cell with the map of shares [*shape]."""
    plane = flat(shares)
    scale = np.quantile(np.abs(plane), 0.995) or 1.0
    share = np.clip(plane / scale, -1, 1)[..., None]
    colours = np.maximum(share, 0) * np.array(FOR) + np.maximum(-share, 0) * np.array(AGAINST)
    return f'<td><img class="picture" alt="evidence" src="{uri("image/png", png(colours))}"></td>'


def png(colours: np.ndarray) -> bytes:
    """The PNG file of [rows, columns, 3] in 0..255."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.round(colours).astype(np.uint8)).save(file, "png")
    return file.getvalue()
