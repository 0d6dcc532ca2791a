"""Several runs side by side, whatever families they are of: one table of all that was measured of them.

A value is marked as the best of its row only where its 95 % interval lies apart from those of all others. Intervals are
what an evaluator gives (`NAME/low`, `NAME/high`), and of coherence that of a share of so many test examples.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgen_jax.evals.intervals import share_interval
from mmgen_jax.report.parts import card, row, section, table
from mmgen_jax.report.style import CSS
from mmgen_jax.train.record import read_evaluation

# What stands beside a value, under its name.
BESIDE = ("low", "high", "floor", "real", "chance", "examples", "samples", "error")
# Better where they are larger, or smaller: what their names begin with.
HIGHER = "authentic bleu cas chrf clip_score coherence coverage exact facts knn latents precision probe recall".split()
LOWER = "bits cer frechet kernel kl length log_mel mind motion_gap nll reconstruction wer".split()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A value of one run; no ends where no interval is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """runs: their names. rows: by metric, a cell for each run, None where it was not measured. notes: sentences."""

    runs: tuple[str, ...]
    rows: Mapping[str, tuple[Cell | None, ...]]
    notes: tuple[str, ...]


def compare(runs: Sequence[str | Path], only: Sequence[str] = ()) -> Comparison:
    """The evaluations of `runs`, of the metrics whose names begin with one of `only` (none: all).

    Raises:
        ValueError: a run was not evaluated, its evaluation cannot be read, or none has such a metric.
    """
    records = {}
    for run in map(Path, runs):
        if (record := read_evaluation(run)) is None:
            raise ValueError(f"{run}: no evaluation.json there; `mmgen evaluate` writes one")
        name = run.resolve().name
        records[name if name not in records else str(run)] = record
    wanted = tuple(only) or ("",)
    names = dict.fromkeys(name for record in records.values() for name in record["values"] if name.startswith(wanted))
    shown = [name for name in names if name.rpartition("/")[2] not in BESIDE and not name.startswith("judge/")]
    if not shown:
        raise ValueError(f"no run has metrics that begin with {', '.join(wanted)}")
    rows = {name: tuple(cell(record["values"], name) for record in records.values()) for name in shown}
    return Comparison(tuple(records), rows, tuple(notes(records)))


def cell(values: Mapping[str, float | None], name: str) -> Cell | None:
    """The value of that name, with its interval."""
    value = values.get(name)
    if value is None:
        return None
    low, high = values.get(f"{name}/low"), values.get(f"{name}/high")
    examples = values.get("coherence/examples")
    if name.startswith("coherence/") and examples and not name.startswith("coherence/given_"):
        low, high = share_interval(value, examples)
    return Cell(value, low, high)


def best(name: str, cells: Sequence[Cell | None]) -> int | None:
    """Which of the cells is better than all others beyond their intervals; None if none is, or better is not known."""
    sign = 1 if name.startswith(tuple(HIGHER)) else -1 if name.startswith(tuple(LOWER)) else 0
    there = [(i, c) for i, c in enumerate(cells) if c is not None]
    if not sign or len(there) < 2 or any(c.low is None or c.high is None for _, c in there):
        return None
    top, winner = max(there, key=lambda item: sign * item[1].value)
    apart = all(sign * (winner.value - c.value) > 0 and disjoint(winner, c) for i, c in there if i != top)
    return top if apart else None


def disjoint(a: Cell, b: Cell) -> bool:
    return a.low > b.high or b.low > a.high


def notes(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What has to be known to compare them, first of all what makes that impossible."""
    found = [f"{name}: step {record['step']:,}" for name, record in records.items()]
    data = {str(record["protocol"].get("data")) for record in records.values()}
    if len(data) > 1:
        found.append("The runs were evaluated on different data: their numbers cannot be compared.")
    judges: dict[str, set[str]] = {}
    for record in records.values():
        for judge in record["protocol"].get("judges", ()):
            judges.setdefault(judge["modality"], set()).add(judge["sha256"])
    for modality, hashes in judges.items():
        listed = ", ".join(sorted(h[:12] for h in hashes))
        differ = "different judges, so that their numbers cannot be compared" if len(hashes) > 1 else "the same judge"
        found.append(f"{modality}: {differ} ({listed})")
    return found


def written(c: Cell | None) -> str:
    """A cell for people: the value and half the width of its interval, or -."""
    if c is None:
        return "-"
    return f"{c.value:.4g}" if c.low is None else f"{c.value:.4g} ± {(c.high - c.low) / 2:.2g}"


def as_markdown(comparison: Comparison) -> str:
    """The table in Markdown, the best in bold, and the notes."""
    lines = [f"| | {' | '.join(comparison.runs)} |", "|---" + "|---:" * len(comparison.runs) + "|"]
    for name, cells in comparison.rows.items():
        top = best(name, cells)
        texts = (f"**{written(c)}**" if i == top else written(c) for i, c in enumerate(cells))
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join([*lines, "", *(f"* {note}" for note in comparison.notes), ""])


def as_csv(comparison: Comparison) -> str:
    """One line a value: metric, run, value, low, high, best."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("metric", "run", "value", "low", "high", "best"))
    for name, cells in comparison.rows.items():
        top = best(name, cells)
        for i, (run, c) in enumerate(zip(comparison.runs, cells, strict=True)):
            if c is not None:
                writer.writerow((name, run, c.value, c.low, c.high, int(i == top)))
    return out.getvalue()


def as_html(comparison: Comparison) -> str:
    """A page that opens without a network."""
    rows = []
    for name, cells in comparison.rows.items():
        top = best(name, cells)
        texts = (f"<b>{written(c)}</b>" if i == top else written(c) for i, c in enumerate(cells))
        rows.append(row(html.escape(name), [f"<td>{text}</td>" for text in texts]))
    body = card(table(["", *map(html.escape, comparison.runs)], rows, "numbers"))
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in comparison.notes)
    lead = "In bold what is better than all others of its row beyond their 95 % intervals."
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>comparison</title>'
        f"<style>{CSS}</style></head><body><main><header><h1>Comparison</h1></header>"
        f"{section('All that was measured', body + f'<ul>{listed}</ul>', lead)}</main></body></html>\n"
    )


WRITERS = {".html": as_html, ".md": as_markdown, ".csv": as_csv}
