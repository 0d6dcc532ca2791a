"""What the program is fed: calls that end where something is due, the right rows, memory of its own."""

import dataclasses
import time

import jax
import numpy as np
import pytest
from train_fakes import MODALITIES, Net, Points, split_in_memory

from mmgen_jax.config import Experiment
from mmgen_jax.data.loader import order
from mmgen_jax.train.feed import calls, feeds, is_due, prefetch
from mmgen_jax.train.mesh import Mesh, stacked_rows
from mmgen_jax.types import Batch


def experiment(**changes):
    defaults = dict(model=Net(), data=Points(), steps=12, batch_size=24, steps_per_call=4, log_every=3, save_every=6)
    return Experiment(**(defaults | changes))


def equal_trees(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def test_is_due():
    assert [step for step in range(1, 10) if is_due(step, 3)] == [3, 6, 9]
    assert not any(is_due(step, 0) for step in range(10))


def test_calls_end_where_something_is_due():
    e = experiment(steps=20, steps_per_call=4, log_every=10, save_every=7, eval_every=0)
    assert list(calls(0, e)) == [(0, 4), (4, 7), (7, 10), (10, 14), (14, 18), (18, 20)]
    assert list(calls(19, e)) == [(19, 20)] and list(calls(20, e)) == []
    assert list(calls(5, dataclasses.replace(e, eval_every=6)))[0] == (5, 6)


@pytest.mark.parametrize("workers", [None, 0])
def test_inputs_follow_from_seed_and_step_and_are_filled_up_with_zeros(workers):
    """A feed that starts at step 4 goes on exactly like one that started at 0; calls are 4-6, 6-9 and 9-12."""
    e, whole = experiment(workers=workers, seed=5), split_in_memory()
    stacked = stacked_rows(Mesh().make(jax.devices()), 24)
    fed = list(feeds(e, Points().source("train"), 4, stacked))
    assert [(stop, int(count)) for stop, count, _ in fed] == [(6, 2), (9, 3), (12, 3)]
    for stop, count, inputs in fed:
        indices = order(96, 5, (stop - count) * 24, stop * 24).reshape(count, 24)
        expected = indices if workers is None else whole.take(indices)
        equal_trees(jax.tree.map(lambda x, n=count: x[:n], inputs), expected)
        assert all(x.shape[:2] == (4, 24) and not x[count:].any() for x in jax.tree.leaves(inputs))
        assert all(x.sharding == stacked for x in jax.tree.leaves(inputs))


def test_feeds_never_share_memory_with_the_loader(tmp_path, monkeypatch):
    """On CPU a device array may be a view of a numpy array; a loader that uses a buffer again must not matter."""
    buffer = {name: np.empty((24, *m.shape), m.dtype) for name, m in MODALITIES.items()}
    present = {name: np.ones(24, bool) for name in MODALITIES}

    def recycling(source, modalities, size, seed, start, stop, workers, rows):
        for i in range(start, stop):
            for x in buffer.values():
                x[:] = i
            yield Batch(buffer, present)

    monkeypatch.setattr("mmgen_jax.train.feed.stream", recycling)
    stacked = stacked_rows(Mesh().make(jax.devices()), 24)
    fed = list(feeds(experiment(workers=0, steps_per_call=3), [], 0, stacked))
    assert [inputs.values["x"].max((1, 2)).tolist() for _, _, inputs in fed] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9, 10, 11],
    ]


def test_prefetch_keeps_order_passes_errors_and_stops():
    made = []

    def items():
        for i in range(100):
            if i == 7:
                raise KeyError("seven")
            made.append(i)
            yield i

    ahead = prefetch(items())
    assert next(ahead) == 0
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2]  # two ahead, not more
    ahead.close()
    with pytest.raises(KeyError, match="seven"):
        list(prefetch(items()))
    assert list(prefetch(i for i in range(9))) == list(range(9))
