"""What sections of the page are built from: headings, cards, tables, and numbers as people write them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np

from mmgen_jax.report.cells import cell
from mmgen_jax.report.contents import Contents


def section(title: str, body: str, text: str = "") -> str:
    return f"<section><h2>{title}</h2>{note(text)}{body}</section>"


def part(title: str, body: str, text: str = "") -> str:
    """Of a section."""
    return f"<h3>{title}</h3>{note(text)}{body}"


def note(text: str) -> str:
    return f'<p class="note">{text}</p>' if text else ""


def card(body: str) -> str:
    return f'<div class="card scroll">{body}</div>'


def table(columns: Sequence[str], rows: Iterable[str], kind: str) -> str:
    top = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    top = f"<thead><tr>{top}</tr></thead>" if columns else ""
    return f'<table class="{kind}">{top}<tbody>{"".join(rows)}</tbody></table>'


def row(title: str, cells: Iterable[str]) -> str:
    return f"<tr><th>{title}</th>{''.join(cells)}</tr>"


def true(contents: Contents, name: str, i: int, kind: str = "") -> str:
    """A table cell of the modality `name` of test example i."""
    if not contents.real.present[name][i]:
        return '<td class="missing">missing</td>'
    return shown(contents, name, contents.real.values[name][i], kind)


def shown(contents: Contents, name: str, x: np.ndarray, kind: str = "") -> str:
    """A table cell of x [*shape]."""
    return f'<td class="{kind}">{cell(name, contents.modalities[name], x)}</td>'


def heat(value: float | None) -> str:
    """A table cell of a share, the more coloured the larger."""
    if value is None:
        return "<td></td>"
    return f'<td style="background: rgb(var(--heat) / {0.62 * value:.2f})">{percent(value)}</td>'


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
