"""Tables of all results, as Markdown in results/README.md, and a picture of them where Matplotlib is installed.

    python -m benchmarks table

Every JSON file of `record.py` in the folder becomes a table; a value that was measured several times is shown as its
median with the extremes. Other files are named at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from record import RESULTS

HEAD = (
    "# Results\n\nMade of the JSON files here by `python -m benchmarks table`; medians, and in brackets the extremes."
)


def cell(value: Any) -> str:
    """A number, a text, nothing, or a median with its extremes."""
    if isinstance(value, Mapping):
        median, low, high = (cell(value[name]) for name in ("median", "low", "high"))
        return median if value["runs"] == 1 else f"{median} ({low} to {high})"
    if isinstance(value, float):
        return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows that may have different columns, as Markdown."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| | {' | '.join(name.replace('_', ' ') for name in columns)} |", "|---|" + "---|" * len(columns)]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(cell(row.get(column)) for column in columns)} |")
    return "\n".join(lines)


def section(name: str, record: Mapping[str, Any]) -> str:
    """A table under what is to be known of it."""
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    said = f"`{record['command']}`\n\n{record['device']}; load before: {record['load_before']:.2f}; {versions}"
    return f"## {name}\n\n{said}\n\n{table(record['rows'])}"


def page(records: Mapping[str, Any], others: Sequence[str]) -> str:
    """All records, and the names of `others`."""
    sections = [HEAD, *(section(name, record) for name, record in records.items())]
    also = [f"Also here: {', '.join(f'`{name}`' for name in others)}."] if others else []
    return "\n\n".join([*sections, *also]) + "\n"


def measured(record: Mapping[str, Any]) -> tuple[str, dict[str, Mapping[str, float]]]:
    """The first column with medians, and those that it has by row."""
    columns = [name for row in record["rows"].values() for name, value in row.items() if isinstance(value, Mapping)]
    column = next(iter(columns), "")
    found = {name: row.get(column) for name, row in record["rows"].items()}
    return column, {name: value for name, value in found.items() if isinstance(value, Mapping)}


def plot(records: Mapping[str, Any], path: Path) -> None:
    """The first column of each record that has medians, as bars from extreme to extreme around them."""
    from matplotlib.figure import Figure

    drawn = {name: found for name, record in records.items() if (found := measured(record))[1]}
    heights = [1 + len(values) for _, values in drawn.values()]
    figure = Figure((8, 1 + 0.25 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(drawn), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (name, (column, values)) in zip(grid, drawn.items(), strict=True):
        median, low, high = ([value[key] for value in values.values()] for key in ("median", "low", "high"))
        axes.hlines(range(len(values)), low, high, linewidth=4, alpha=0.4)
        axes.plot(median, range(len(values)), "o")
        axes.set(yticks=range(len(values)), yticklabels=values, title=f"{name}: {column.replace('_', ' ')}")
        axes.set(xscale="log", ylim=(len(values) - 0.5, -0.5))
    figure.savefig(path, dpi=120)


def main(args: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(
        "python -m benchmarks table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--folder", type=Path, default=RESULTS, help="of the results")
    folder = flags.parse_args(args).folder
    files = {path.name: path.read_text() for path in sorted(folder.glob("*.json"))}
    records = {Path(name).stem: json.loads(text) for name, text in files.items() if '"rows"' in text}
    mine = {"README.md", "README.png", *(f"{name}.json" for name in records)}
    others = sorted({path.name for path in folder.iterdir()} - mine)
    text = page(records, others)
    if records and importlib.util.find_spec("matplotlib"):
        plot(records, folder / "README.png")
        text = text.replace(HEAD, f"{HEAD}\n\n![The first measured column of each table](README.png)")
    (folder / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
