"""One page about a run, report.html: it opens without a network, wherever it is sent, and loads nothing.

Whatever a model or a run directory says is escaped, so a page may be made of anybody's run.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmgen_jax.report.cells import cell
from mmgen_jax.report.contents import JOINT, TEXTS, Contents, collect
from mmgen_jax.report.evidence_sections import evidence
from mmgen_jax.report.latent_sections import latent_space
from mmgen_jax.report.looking_sections import inside
from mmgen_jax.report.parts import card, heat, percent, row, section, shown, table, true
from mmgen_jax.report.plots import curve, short
from mmgen_jax.report.style import CSS
from mmgen_jax.report.surprise_sections import expected

SHOWN = 3  # of the real examples, in the grid of what is made of them


def write(run: str | Path, experiment: str | Path | None = None, beside: Sequence[str | Path] = ()) -> Path:
    """Write report.html into the run directory and return its path.

    Args:
        run: a directory that was trained in.
        experiment: the experiment file, if the run has classes of its own.
        beside: other runs, whose coherence is shown beside this one's.
    Raises:
        ValueError: not a run directory, nothing saved in it yet, or one of `beside` was not evaluated.
    """
    from mmgen_jax.run import load_run

    path = Path(run) / "report.html"
    contents = collect(Path(run), *load_run(run, experiment), [Path(other) for other in beside])
    path.write_text(page(contents), encoding="utf-8")
    return path


def page(contents: Contents) -> str:
    """The whole page as HTML."""
    sections = (
        head(contents),
        conditional(contents),
        joint(contents),
        texts(contents),
        reconstructions(contents),
        coherence(contents),
        latent_space(contents),
        inside(list(contents.modalities), contents.looks),
        evidence(contents),
        expected(contents),
        curves(contents),
        metrics(contents),
        origin(contents),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(contents.title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def head(contents: Contents) -> str:
    """Title, a paragraph, and the numbers that matter most."""
    names = list(contents.modalities)
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    makes = (
        " together and makes any of them from any others" if contents.joint else " and makes some of them from others"
    )
    lead = (
        f"A {contents.model} that models {listed} of {contents.data}{makes if len(names) > 1 else ''}. "
        f"What this page shows was made by its checkpoint of step {contents.step:,}, from examples of the test split."
    )
    tiles = {"training steps": f"{contents.step:,}", "parameters": f"{contents.parameters:,}"}
    if contents.rows:
        tiles["of training"] = duration(contents.rows[-1]["seconds"])
    named = {"coherence/given_1": "coherence, one given", "coherence/joint": "coherence, joint"}
    tiles |= {text: percent(v) for name, text in named.items() if (v := contents.evaluation.get(name)) is not None}
    boxes = "".join(f'<div class="tile"><b>{value}</b><span>{text}</span></div>' for text, value in tiles.items())
    return (
        f"<header><h1>{html.escape(contents.title)}</h1>"
        f'<p class="lead">{html.escape(lead)}</p><div class="tiles">{boxes}</div></header>'
    )


def curves(contents: Contents) -> str:
    """The loss, wide, then every other training metric."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in contents.rows:
        for name, value in line.items():
            if value is not None and name not in ("step", "seconds", *contents.evaluation):
                series.setdefault(name, []).append((line["step"], value))
    drawn = {name: points for name, points in series.items() if len(points) > 1}
    if not drawn:
        return ""
    figures = []
    for name in sorted(drawn, key=lambda name: name != "loss"):
        first = name == "loss"
        svg = curve(*zip(*drawn[name], strict=True), **({"width": 1080, "height": 230} if first else {}))
        caption = f"<figcaption>{html.escape(name)}</figcaption>"
        figures.append(f'<figure class="card{" first" if first else ""}">{caption}{svg}</figure>')
    return section("Training", f'<div class="plots">{"".join(figures)}</div>')


def conditional(contents: Contents) -> str:
    """For some test examples a grid: in each row one modality is given and the others are made of it."""
    if not contents.made:
        return ""
    names = list(contents.modalities)
    cards = []
    for i in range(min(SHOWN, len(contents.real))):
        rows = [row("the real one", [true(contents, name, i) for name in names])]
        for given, made in contents.made.items():
            if contents.real.present[given][i] and made.keys() - {given}:  # a model may not make all modalities
                answers = {name: shown(contents, name, x[i]) for name, x in made.items()}
                answers[given] = true(contents, given, i, "given")
                cells = [answers.get(name, "<td></td>") for name in names]
                rows.append(row(html.escape(f"from {given}"), cells))
        cards.append(card(table(["", *names], rows, "grid")))
    text = "Above, a test example. Each row below was given only what is framed; the rest of the row was made from it."
    return section("Any from any other", "".join(cards), text)


def joint(contents: Contents) -> str:
    """Samples with nothing given; nothing if there are none."""
    if not contents.joint:
        return ""
    boxes = (
        '<div class="card">'
        + "".join(cell(n, m, contents.joint[n][i]) for n, m in contents.modalities.items() if n in contents.joint)
        + "</div>"
        for i in range(JOINT)
    )
    text = "Nothing was given: all parts of a sample were made together."
    return section("Out of nothing", f'<div class="samples">{"".join(boxes)}</div>', text)


def texts(contents: Contents) -> str:
    """More of the texts that were made with nothing given."""
    parts = []
    for name, modality in contents.modalities.items():
        if name in contents.joint and np.issubdtype(modality.dtype, np.integer) and modality.shape:
            items = "".join(f"<li>{cell(name, modality, x)}</li>" for x in contents.joint[name][:TEXTS])
            parts.append(card(f'<ol class="texts">{items}</ol>'))
    return section("Texts", "".join(parts)) if parts else ""


def reconstructions(contents: Contents) -> str:
    """Test examples above what the model gives back when it is given all of them."""
    if contents.reconstructed is None:
        return ""
    rows, examples = [], range(len(contents.real))
    for name in contents.reconstructed:
        rows.append(row(html.escape(name), [true(contents, name, i) for i in examples]))
        rows.append(row("given back", [shown(contents, name, contents.reconstructed[name][i]) for i in examples]))
    return section("Given back", card(table([], rows, "grid")), "Every part was given, and decoded again.")


def coherence(contents: Contents) -> str:
    """The share of made examples of the right class, one modality given, as a coloured table for each run."""
    runs = {contents.title: contents.evaluation, **contents.beside}
    tables = {title: coherences(list(contents.modalities), values) for title, values in runs.items()}
    if not tables[contents.title]:
        return ""
    cards = [
        card((f"<h3>{html.escape(title)}</h3>" if contents.beside else "") + heats)
        for title, heats in tables.items()
        if heats
    ]
    text = "How often what is made (column) from one given modality (row) is judged to be of the right class."
    accuracy = [
        row(
            html.escape(judge["modality"]),
            [f"<td>{percent(judge['accuracy'])}</td><td><code>{html.escape(judge['sha256'][:12])}</code></td>"],
        )
        for judge in contents.judges
        if "accuracy" in judge  # others were not trained here
    ]
    judges = table(["trained judge", "accuracy on real examples", "hash of its weights"], accuracy, "numbers")
    return section("Coherence", "".join(cards) + (card(judges) if accuracy else ""), text)


def coherences(names: Sequence[str], evaluation: Mapping[str, float | None]) -> str:
    """One such table; nothing if no coherence was measured."""
    values = {(a, b): evaluation.get(f"coherence/{a}->{b}") for a in names for b in names}
    if all(value is None for value in values.values()):
        return ""
    rows = [row(html.escape(f"from {a}"), [heat(values[a, b]) for b in names]) for a in names]
    return table(["", *names], rows, "heat")


def metrics(contents: Contents) -> str:
    """Every number of the evaluation, by evaluator."""
    groups: dict[str, list[str]] = {}
    for name, value in contents.evaluation.items():
        group, _, rest = name.partition("/")
        number = "not a number" if value is None else f"{value:.4g}"
        groups.setdefault(group, []).append(row(html.escape(rest or group), [f"<td>{number}</td>"]))
    parts = [
        f"<details><summary>{html.escape(group)}: {len(rows)} numbers</summary>{table([], rows, 'numbers')}</details>"
        for group, rows in groups.items()
    ]
    return section("All numbers", card("".join(parts))) if parts else ""


def origin(contents: Contents) -> str:
    """How the run was made: commands, versions, configuration."""
    starts = []
    for start in contents.starts:
        versions = ", ".join(f"{name} {version}" for name, version in start["versions"].items())
        note = f"{start['started']}, {versions}, {' x '.join(map(str, start['devices']))}"
        command = f"<code>{html.escape(start['command'])}</code>"
        starts.append(f'<p>{command}<br><span class="note">{html.escape(note)}</span></p>')
    config = f"<details><summary>Configuration</summary><pre>{html.escape(contents.config)}</pre></details>"
    return section("Where it comes from", card("".join(starts) + config))


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{short(round(seconds, 1))} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
