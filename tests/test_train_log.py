"""The log: rows that survive a crash, numbers JSON can hold, TensorBoard, a line for people."""

import json
import sys

import pytest

from mmgen_jax.train.log import Log, finite, read_rows


def test_rows_are_lines_of_json(tmp_path):
    with Log(tmp_path, 0, 100, 8) as log:
        log.train_row(10, {"loss": 1.5, "grad_norm": 2.0})
        log.row(10, {"score": float("nan")})
        assert len(read_rows(tmp_path / "metrics.jsonl")) == 2  # at once, not when the log is closed
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert list(first) == ["step", "seconds", "loss", "grad_norm", "steps_per_second"]
    assert first["step"] == 10 and first["loss"] == 1.5 and second["score"] is None


def test_a_resumed_log_drops_later_rows_and_goes_on_counting_seconds(tmp_path):
    rows = [{"step": s, "seconds": 10.0 * s, "loss": 0.1} for s in (1, 2, 3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 4, "sec')  # cut off by a crash
    with Log(tmp_path, 2, 10, 8) as log:
        log.row(3, {"loss": 0.2})
    kept = read_rows(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in kept] == [(1, 0.1), (2, 0.1), (3, 0.2)]
    assert 20.0 <= kept[-1]["seconds"] < 25.0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["metrics.jsonl"]  # no part left behind


def test_reading_tells_a_broken_file_from_one_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_rows(path) == []
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="metrics.jsonl, line 2 is not JSON"):
        read_rows(path)


def test_speed_leaves_out_what_was_not_training(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("mmgen_jax.train.log.time.perf_counter", lambda: now[0])
    with Log(tmp_path, 0, 100, 8) as log:
        now[0] += 2.0
        log.train_row(10, {})
        now[0] += 50.0
        log.restart_clock(10)
        now[0] += 1.0
        made = now[0]
        now[0] += 7.0  # its metrics are read while the next call runs
        log.train_row(20, {}, made)
    first, second = read_rows(tmp_path / "metrics.jsonl")
    assert (first["steps_per_second"], second["steps_per_second"]) == (5.0, 10.0)
    assert (first["seconds"], second["seconds"]) == (2.0, 60.0)


def test_lines_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mmgen_jax.train.log.time.perf_counter", lambda: now[0])
    with Log(tmp_path, 10, 100, 8) as log:
        now[0] += 5.0
        log.train_row(20, {"loss": 0.25, "grad_norm": 1.0})
        now[0] += 1e5
        log.train_row(30, {"critic_loss": 1.0})
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "going on from step 10",
        "step 20/100 loss 0.25 2 steps/s 16 examples/s 0:00:40 left",
        "step 30/100 critic_loss 1 0.0001 steps/s 0.0008 examples/s 4 days, 1:13:38 left",
    ]


def test_a_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Log(tmp_path, 0, 100, 8) as log:
        log.train_row(20, {"loss": 0.25})
    assert "20/100" in capsys.readouterr().err


def test_only_the_first_process_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmgen_jax.train.log.jax.process_index", lambda: 1)
    with Log(tmp_path, 0, 100, 8) as log:
        log.train_row(20, {"loss": 0.25})
        log.row(20, {"fid": 1.0})
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_tensorboard_has_the_scalars(tmp_path):
    with Log(tmp_path, 0, 100, 8) as log:
        log.row(7, {"loss": 0.25})
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in file.read_bytes()


def test_finite():
    assert finite({"a": float("nan"), "b": float("-inf"), "c": 1.0, "d": 2}) == {"a": None, "b": None, "c": 1.0, "d": 2}
