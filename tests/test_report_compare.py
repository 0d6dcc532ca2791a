"""Runs beside each other: what is marked as better, what is said about judges, and the three ways to write it."""

import csv
import json

import pytest

from mmgen_jax.evals.intervals import share_interval
from mmgen_jax.report.compare import as_csv, as_html, as_markdown, compare
from mmgen_jax.train.record import read_evaluation

A = {
    "coherence/examples": 1000,
    "coherence/a->b": 0.95,
    "coherence/b->a": 0.50,
    "frechet/a": 2.0,
    "frechet/a/low": 1.8,
    "frechet/a/high": 2.2,
    "frechet/a/floor": 0.5,
    "odd": 1.0,
    "judge/a": 0.99,
}
B = A | {"coherence/a->b": 0.90, "coherence/b->a": 0.51, "frechet/a": 1.0, "frechet/a/low": 0.9, "frechet/a/high": 1.1}


@pytest.fixture
def runs(tmp_path):
    def write(name, values, sha256, data="digits"):
        folder = tmp_path / name
        folder.mkdir()
        judge = {"modality": "a", "accuracy": 0.99, "sha256": sha256}
        record = {"step": 7, "values": values, "protocol": {"data": data, "judges": [judge]}}
        (folder / "evaluation.json").write_text(json.dumps(record))
        return folder

    return write


def test_the_best_is_marked_only_where_intervals_lie_apart(runs):
    both = compare([runs("vae", A, "x" * 64), runs("<flow>", B | {"odd": 2.0}, "x" * 64)])
    assert list(both.rows) == ["coherence/a->b", "coherence/b->a", "frechet/a", "odd"]
    lines = as_markdown(both).splitlines()
    low, high = share_interval(0.95, 1000)
    assert lines[0] == "| | vae | <flow> |"
    assert lines[2] == f"| coherence/a->b | **0.95 ± {(high - low) / 2:.2g}** | 0.9 ± 0.019 |"
    assert "**" not in lines[3]  # 0.50 and 0.51 of a thousand
    assert lines[4] == "| frechet/a | 2 ± 0.2 | **1 ± 0.1** |"  # less is better
    assert lines[5] == "| odd | 1 | 2 |"  # nobody knows which is better
    assert "* a: the same judge (xxxxxxxxxxxx)" in lines
    page = as_html(both)
    assert "<b>1 ± 0.1</b>" in page and "&lt;flow&gt;" in page and "<flow>" not in page
    table = list(csv.DictReader(as_csv(both).splitlines()))
    assert [row["best"] for row in table] == ["1", "0", "0", "0", "0", "1", "0", "0"]
    assert float(table[4]["low"]) == 1.8 and table[-1]["low"] == ""


def test_what_cannot_be_compared_is_said(runs):
    both = compare([runs("one", A, "x" * 64), runs("two", {"coherence/a->b": 0.9}, "y" * 64, "others")], ["coherence"])
    assert any("different data" in note for note in both.notes)
    assert any("a: different judges" in note and "xxxxxxxxxxxx, yyyyyyyyyyyy" in note for note in both.notes)
    assert both.rows["coherence/b->a"][1] is None and "-" in as_markdown(both)


def test_errors(runs, tmp_path):
    run = runs("one", A, "x" * 64)
    with pytest.raises(ValueError, match="no evaluation.json there"):
        compare([run, tmp_path])
    with pytest.raises(ValueError, match="no run has metrics that begin with fid"):
        compare([run], ["fid"])
    assert read_evaluation(tmp_path) is None
    for broken in ("{", "[]", "{}"):
        (run / "evaluation.json").write_text(broken)
        with pytest.raises(ValueError, match="evaluation.json is not an evaluation"):
            compare([run])
