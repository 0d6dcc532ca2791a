"""Evidence as HTML: maps of what speaks for the answer, and of what speaks against it."""

from __future__ import annotations

import html

import numpy as np

from mmgen_jax.report.contents import Contents
from mmgen_jax.report.evidence import as_map
from mmgen_jax.report.parts import card, row, section, table, true

TALL = 84  # of a map, in pixels


def reasons(contents: Contents) -> str:
    """For some test examples, each modality beside its map; nothing if the model does not say."""
    found = contents.evidence
    if found is None:
        return ""
    cards = []
    for i in range(min(map(len, found.shares.values()))):
        if not contents.real.present[found.of][i]:
            continue
        answer = str(contents.modalities[found.of].decode(contents.real.values[found.of][i]))
        rows = [
            row(html.escape(name), [true(contents, name, i), drawn(x[i]), f"<td>{x[i].sum():+.1f}</td>"])
            for name, x in found.shares.items()
            if contents.real.present[name][i]
        ]
        top = ["", "test example", f"what speaks for {answer}, or against it", "nats in all"]
        cards.append(card(table(top, rows, "grid")) if rows else "")
    text = (
        f"How much more probable the true {html.escape(found.of)} is to the model when it sees these examples than "
        "when it sees the mean of some, shared out among their values (integrated gradients of its logarithm); nothing "
        "else was given. The fuller the colour the larger the share; frames of a clip are added up."
    )
    return section("What speaks for the answer", "".join(cards), text) if any(cards) else ""


def drawn(shares: np.ndarray) -> str:
    """A table cell with a map, as SVG; its largest share has the full colour."""
    values = as_map(shares)
    rows, columns = values.shape
    most = np.abs(values).max() or 1.0
    cells = "".join(
        f'<rect class="{"for" if value > 0 else "against"}" x="{x}" y="{y}" width="1" height="1" '
        f'opacity="{abs(value) / most:.2f}"/>'
        for (y, x), value in np.ndenumerate(values)
        if abs(value) > 0.02 * most  # else it could not be seen
    )
    height = TALL if rows > 1 else TALL // 4
    wide = TALL * columns // rows if rows > 1 else 2 * TALL
    svg = f'<svg class="evidence" width="{wide}" height="{height}" viewBox="0 0 {columns} {rows}" role="img" '
    return f'<td>{svg}preserveAspectRatio="none">{cells}</svg></td>'
