"""The loop: exact resume, one compilation, stopping, failing, evaluating."""

import dataclasses
import json
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from train_fakes import Net, Points, Sends, split_in_memory

from mmgen_jax.config import Experiment
from mmgen_jax.modalities import Vector
from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.train.distributed import Interrupted
from mmgen_jax.train.log import Log, read_rows
from mmgen_jax.train.loop import compile_calls, end_of_call, evaluation_data, fit, keep_compiled_programs
from mmgen_jax.train.mesh import Mesh, put, put_everywhere, replicated, stacked_rows
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.types import Batch, TrainState


def experiment(**changes):
    defaults = dict(model=Net(), data=Points(), steps=12, batch_size=24, steps_per_call=4, log_every=3, save_every=6)
    defaults |= dict(mesh=Mesh(data=1), optimizer=Optimizer(learning_rate=1e-2, ema=0.9))
    return Experiment(**(defaults | changes))


def equal_trees(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def close_trees(a, b, tol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tol, atol=tol), a, b)


def losses(workdir):
    return [(row["step"], row["loss"]) for row in read_rows(workdir / "metrics.jsonl") if "loss" in row]


def stops_after_a_call(step, number=signal.SIGTERM, **changes):
    """An experiment that is asked to stop at `step`, and stops when the next call is done."""
    return experiment(**changes, evaluators=(Sends(number),), eval_every=step)


@dataclasses.dataclass(frozen=True)
class Recorder:
    """An evaluator that returns the size of the parameters, and keeps what it was given."""

    seen: list = dataclasses.field(default_factory=list, compare=False)

    def __call__(self, model, variables, data, key):
        self.seen.append((variables, data, key))
        return {"size": float(sum(np.abs(x).sum() for x in jax.tree.leaves(variables["params"])))}


def test_a_run_learns_and_leaves_its_files(tmp_path):
    state = fit(experiment(steps=60, log_every=20), tmp_path / "run")
    assert int(state.step) == 60
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [20, 40, 60] and rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert {"step", "seconds", "loss", "grad_norm", "error", "learning_rate", "steps_per_second"} == set(rows[0])
    assert rows[0]["learning_rate"] == pytest.approx(1e-2)
    present = {path.name for path in (tmp_path / "run").iterdir()}
    assert present >= {"config.json", "metrics.jsonl", "tensorboard", "checkpoints"}
    assert "evaluation.json" not in present


@pytest.mark.parametrize("changes", [{}, {"per_device": True, "mesh": Mesh(data=8)}, {"workers": 0}])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, changes):
    whole = fit(experiment(**changes), tmp_path / "whole")
    cut = stops_after_a_call(7, **changes)
    with pytest.raises(Interrupted, match="stopped at step 9, which is saved") as caught:
        fit(cut, tmp_path / "cut")
    assert caught.value.step == 9 and Checkpoints(tmp_path / "cut" / "checkpoints").latest == 9
    equal_trees(whole, fit(cut, tmp_path / "cut"))
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.parametrize("k, tolerance", [(3, 0), (12, 0), (1, 1e-6)])
def test_steps_per_call_changes_nothing_but_speed(tmp_path, k, tolerance):
    first = fit(experiment(), tmp_path / "four")
    other = fit(experiment(steps_per_call=k), tmp_path / "other")
    close_trees(first, other, tolerance)
    np.testing.assert_allclose(losses(tmp_path / "four"), losses(tmp_path / "other"), rtol=tolerance)


def test_resumed_with_another_number_of_devices_and_steps_per_call(tmp_path):
    sgd = dict(optimizer=Optimizer(name="sgd", learning_rate=0.01))
    whole = fit(experiment(**sgd), tmp_path / "whole")
    cut = stops_after_a_call(7, **sgd, mesh=Mesh(data=2, fsdp=4))
    with pytest.raises(Interrupted):
        fit(cut, tmp_path / "cut")
    resumed = fit(dataclasses.replace(cut, mesh=Mesh(data=1), steps_per_call=5), tmp_path / "cut")
    close_trees(whole, resumed, 1e-6)


def test_all_meshes_and_both_paths_train_alike(tmp_path):
    sgd = dict(optimizer=Optimizer(name="sgd", learning_rate=0.01), model=Net(noise=0.0, width=256))
    one = fit(experiment(**sgd), tmp_path / "one")
    kinds = {"data": dict(mesh=Mesh()), "mixed": dict(mesh=Mesh(data=2, fsdp=2, model=2))}
    kinds["per_device"] = dict(mesh=Mesh(), per_device=True)
    for name, kind in kinds.items():
        other = fit(experiment(**sgd, **kind), tmp_path / name)
        close_trees(one, other, 2e-6)
        assert len(other.params["dense"]["kernel"].sharding.device_set) == 8
    mixed = fit(experiment(**sgd, **kinds["mixed"]), tmp_path / "mixed")
    assert not mixed.params["dense"]["kernel"].is_fully_replicated


def counted(traces):
    class Counted(Net):
        def step(self, *args):
            traces.append(1)
            return super().step(*args)

    return Counted()


def test_the_step_is_traced_once_and_not_at_all_when_the_run_is_finished(tmp_path):
    traces = []
    e = experiment(steps=11, model=counted(traces))  # calls of 3, 3, 3 and 2 steps
    state = fit(e, tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert len(traces) == 1
    equal_trees(fit(e, tmp_path / "run"), state)
    assert len(traces) == 1 and (tmp_path / "run" / "metrics.jsonl").read_text() == rows


def test_the_program_refuses_what_would_compile_it_again():
    e = experiment()
    tx, stacked = e.optimizer.make(12), stacked_rows(e.mesh.make(jax.devices()), 24)
    state = jax.device_put(TrainState.create(e.model, tx, jax.random.key(0), ema=True), replicated(stacked.mesh))
    resident = put_everywhere(split_in_memory(), stacked.mesh)
    program = compile_calls(e, tx, state, resident, stacked)
    with pytest.raises(TypeError, match="called with"):
        program(state, resident, put(np.zeros((4, 12), np.int32), stacked, 12), np.int32(4))


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    e = experiment(model=Net(breaks_at=7), save_every=2)
    with pytest.raises(FloatingPointError, match="loss is nan at step 8; training stopped"):
        fit(e, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints.latest == 6
    with pytest.raises(FloatingPointError, match="step 8"):
        fit(e, tmp_path / "run")


def test_ctrl_c_saves_as_well(tmp_path):
    with pytest.raises(Interrupted, match="step 6"):
        fit(stops_after_a_call(3, number=signal.SIGINT), tmp_path / "run")
    assert Checkpoints(tmp_path / "run" / "checkpoints").latest == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_evaluators_see_the_average_and_both_splits(tmp_path):
    recorder = Recorder()
    e = experiment(evaluators=(recorder,), eval_every=5, data=Points(48))
    state = fit(e, tmp_path / "run")
    assert len(recorder.seen) == 3  # steps 5, 10 and 12
    variables, data, _ = recorder.seen[-1]
    equal_trees(variables["params"], state.ema)
    assert set(variables) == {"params", "seen"} and len(data.train) == len(data.test) == 48
    assert data.cache == tmp_path / "run" / "judges" and isinstance(data.test.values["x"], np.ndarray)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    size = float(sum(np.abs(np.asarray(x)).sum() for x in jax.tree.leaves(state.ema)))
    assert evaluation["step"] == 12 and evaluation["values"]["size"] == pytest.approx(size, rel=1e-6)
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "size" in row]
    assert [row["step"] for row in rows] == [5, 10, 12]


def test_evaluators_see_labels_that_the_model_does_not(tmp_path):
    blind = SimpleNamespace(modalities={"x": Vector(8)}, step=Net.step)
    e, whole = experiment(model=blind, labels={"y": Vector(4)}, evaluators=(Recorder(),)), split_in_memory()
    data = evaluation_data(e, e.data.source("train"), whole.only(["x"]), tmp_path)
    equal_trees(data.train, whole)
    assert list(data.test.values) == ["x", "y"] and not data.test.present["y"].all()
    equal_trees(data.train.only(["x"]), Batch({"x": whole.values["x"]}, {"x": whole.present["x"]}))


def test_the_best_checkpoint_outlives_later_ones(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Peak:
        def __call__(self, model, variables, data, key):
            return {"score": -abs(float(variables["seen"]) - 2.7)}  # `seen` grows by 2/3 a step: best near step 4

    e = experiment(evaluators=(Peak(),), eval_every=2, save_every=2, keep=1, best="score")
    fit(e, tmp_path / "run")
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps == [4, 12]


def test_an_evaluator_that_fails_does_not_lose_the_state(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Broken:
        def __call__(self, model, variables, data, key):
            raise RuntimeError("no such judge")

    with pytest.raises(RuntimeError, match="no such judge"):
        fit(experiment(evaluators=(Broken(),)), tmp_path / "run")
    assert Checkpoints(tmp_path / "run" / "checkpoints").latest == 12


@pytest.mark.parametrize(
    "changes, text",
    [
        (dict(batch_size=12, mesh=Mesh()), "batch_size is 12, but must be a multiple of mesh.data . mesh.fsdp = 8"),
        (dict(mesh=Mesh(data=16)), "needs 16 devices, but there are 8"),
        (dict(mesh=Mesh(data=4, model=2), per_device=True), "mesh.fsdp and mesh.model must be 1"),
        (dict(optimizer=Optimizer(warmup=50)), "optimizer.warmup is 50, but must be less than steps = 12"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path, changes, text):
    with pytest.raises(ValueError, match=text):
        fit(experiment(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_after_the_restored_step_are_dropped(tmp_path):
    e = stops_after_a_call(4)
    with pytest.raises(Interrupted, match="step 6"):
        fit(e, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "seconds": 1.0, "loss": 123.0}\n{"step": 12, "sec')
    fit(e, tmp_path / "run")
    assert [step for step, _ in losses(tmp_path / "run")] == [3, 6, 9, 12]
    assert 123.0 not in [loss for _, loss in losses(tmp_path / "run")]


def test_every_row_of_the_log_has_the_time_at_which_its_own_call_was_done(tmp_path, monkeypatch):
    monkeypatch.setattr("mmgen_jax.train.loop.end_of_call", lambda metrics: float(metrics["step"]))
    told = []
    monkeypatch.setattr(Log, "train_row", lambda self, step, values, at: told.append((step, at)))
    fit(experiment(steps=40, steps_per_call=10, log_every=10, save_every=20), tmp_path)
    assert told == [(10, 10), (20, 20), (30, 30), (40, 40)]


def test_the_end_of_a_call_is_when_its_results_are_there():
    metrics = {"step": jax.jit(lambda x: (x @ x).sum())(np.ones((500, 500), np.float32))}
    before = time.perf_counter()
    assert before < end_of_call(metrics) < time.perf_counter() and metrics["step"].is_ready()


def test_the_compilation_cache_is_set_only_where_nobody_has(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == before is not None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mmgen_jax" / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
