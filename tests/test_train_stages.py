"""Models that build on others: begun from their runs, their training set prepared once, a checkpoint that is whole."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_fakes import Net, Points, split_in_memory

from mmgen_jax.config import Experiment, from_json, to_json
from mmgen_jax.run import load_variables
from mmgen_jax.train.loop import fit
from mmgen_jax.train.mesh import Mesh
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.train.stages import prepared
from mmgen_jax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Second(Net):
    """The same network, of x times the size of the bias that its first stage has learned."""

    base: Net = Net()

    @property
    def first(self):
        return {"x": self.base}

    def init(self, key):
        params, stats = super().init(key)
        shapes = jax.eval_shape(self.base.init, key)[0]["dense"]["bias"]
        return params, {**stats, "bias": jnp.zeros(shapes.shape), "examples": jnp.zeros((), jnp.int32)}

    def begin(self, stats, trained, data):
        assert isinstance(data.values["x"], np.ndarray)  # eager, on what the loader made
        return {**stats, "bias": trained["x"]["params"]["dense"]["bias"], "examples": jnp.asarray(len(data))}

    def prepare(self, stats, batch):
        scaled = batch.values["x"] * jnp.linalg.norm(stats["bias"])
        return Batch({**batch.values, "x": (scaled,)}, batch.present)  # no longer an array, so it cannot be mistaken

    def step(self, tx, state, batch, key):
        if not isinstance(batch.values["x"], tuple):
            batch = self.prepare(state.stats, batch)
        return super().step(tx, state, Batch({**batch.values, "x": batch.values["x"][0]}, batch.present), key)

    def loss(self, params, stats, batch, key):
        per_example, (counted, metrics) = super().loss(params, stats, batch, key)
        return per_example, ({**stats, **counted}, metrics)


def experiment(**changes):
    defaults = dict(model=Net(), data=Points(), steps=6, batch_size=24, steps_per_call=3, log_every=3, save_every=3)
    defaults |= dict(mesh=Mesh(data=1), optimizer=Optimizer(learning_rate=1e-2, ema=0.9))
    return Experiment(**(defaults | changes))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(a run of the first stage, its last state)."""
    run = tmp_path_factory.mktemp("first") / "run"
    return run, fit(experiment(), run)


def second(run, **changes):
    return experiment(model=Second(), first={"x": str(run)}, **changes)


def equal_trees(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


@pytest.fixture(scope="module")
def whole(first, tmp_path_factory):
    return fit(second(first[0]), tmp_path_factory.mktemp("whole") / "run")


def test_it_begins_with_the_variables_of_the_first_run(first, whole):
    equal_trees(whole.stats["bias"], first[1].ema["dense"]["bias"])
    assert np.abs(whole.stats["bias"]).max() > 0 and int(whole.stats["examples"]) == 96


def test_prepared_ahead_equals_prepared_in_every_step(first, whole, tmp_path):
    """In memory everything is prepared once, streamed every step prepares its own batch."""
    streamed = fit(second(first[0], workers=0), tmp_path / "streamed")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, streamed)


def test_all_examples_are_prepared_in_order_and_only_where_there_is_something_to_prepare(monkeypatch):
    monkeypatch.setattr("mmgen_jax.train.stages.PART", 40)  # 96 examples: the last part is filled up
    split, stats = split_in_memory(), {"bias": jnp.full(4, 1.5)}
    ahead = prepared(Second(), stats, split)
    equal_trees(ahead.values["x"][0], 3 * split.values["x"])
    equal_trees((ahead.values["y"], ahead.present), (split.values["y"], split.present))
    assert prepared(Net(), {}, split) is split


def test_resumed_without_the_first_run_equals_uninterrupted(first, whole, tmp_path):
    copy = shutil.copytree(first[0], tmp_path / "first")
    fit(second(copy, steps=3), tmp_path / "run")
    shutil.rmtree(copy)
    (tmp_path / "run" / "config.json").write_text(to_json(second(copy)))  # of three steps more
    equal_trees(fit(second(copy), tmp_path / "run"), whole)


def test_eight_devices_begin_alike(first, tmp_path):
    sgd = dict(optimizer=Optimizer(name="sgd", learning_rate=0.01))
    states = [
        fit(dataclasses.replace(second(first[0], mesh=mesh, **sgd), model=Second(noise=0.0)), tmp_path / name)
        for name, mesh in {"one": Mesh(data=1), "eight": Mesh(data=2, fsdp=4)}.items()
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *states)


def test_a_run_that_cannot_be_built_on_is_refused(first, tmp_path):
    run, _ = first
    with pytest.raises(ValueError, match="nowhere is not a run directory: it has no config.json"):
        fit(second(tmp_path / "nowhere"), tmp_path / "a")
    with pytest.raises(ValueError, match="has trained another model than Net.width=8"):
        load_variables(run, Net(width=8))
    (tmp_path / "empty").mkdir()
    shutil.copy(run / "config.json", tmp_path / "empty")
    with pytest.raises(ValueError, match="empty has no checkpoint yet"):
        load_variables(tmp_path / "empty", Net())
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="empty: config.json is not readable JSON"):
        load_variables(tmp_path / "empty", Net())


def test_a_run_that_cannot_be_built_on_leaves_nothing_behind(first, tmp_path):
    """Else the new run directory would be of an experiment that never began, and refuse the one that is right."""
    for wrong in (tmp_path / "nowhere", broken_copy(first[0], tmp_path / "broken")):
        with pytest.raises((ValueError, OSError), match=str(wrong)):
            fit(second(wrong), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    assert int(fit(second(first[0], steps=3), tmp_path / "run").step) == 3


def broken_copy(run, to):
    """Of a run, with all checkpoints damaged."""
    shutil.copytree(run, to)
    for manifest in (to / "checkpoints").glob("*/_CHECKPOINT_METADATA"):
        manifest.write_text("{")
    return to


def test_an_experiment_names_a_run_for_each_first_stage():
    with pytest.raises(ValueError, match=r"first names runs for \[\], but the model builds on \['x'\]"):
        experiment(model=Second())
    with pytest.raises(ValueError, match=r"first names runs for \['x'\], but the model builds on \[\]"):
        experiment(first={"x": "run"})
    saved = second("run")
    assert from_json(to_json(saved), saved) == saved and saved.first == {"x": "run"}
