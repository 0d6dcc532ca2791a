"""Encoding, order, batches and streams: the same arrays whichever way they are read."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from mmgen_jax.data import Arrays, batches, encode, load, order, stream
from mmgen_jax.data.loader import permutation
from mmgen_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A modality of `dim` floats in [0, 1]."""

    dim: int
    dtype: Any = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim,)

    def encode(self, raw: Any) -> np.ndarray:
        x = np.asarray(raw, np.float32)
        if not (x >= 0).all() or not (x <= 1).all():
            raise ValueError(f"values must be in [0, 1], not {raw}.")
        return x


@dataclasses.dataclass(frozen=True)
class Class:
    """A modality of a class below `classes`."""

    classes: int
    shape: tuple[int, ...] = ()
    dtype: Any = np.dtype(np.int32)

    def encode(self, raw: Any) -> np.ndarray:
        if not 0 <= raw < self.classes:
            raise ValueError(f"a class must be from 0 to {self.classes - 1}, not {raw}.")
        return np.array(raw, np.int32)


ORDER_OF_SEED_0 = [5, 0, 6, 1, 7, 2, 4, 3, 2, 0, 4, 1, 7, 5, 3, 6]
MODALITIES = {"x": Numbers(2), "label": Class(10)}


def source(n: int = 10) -> Any:
    x = [None if i == 3 else [i / n, 0.5] for i in range(n)]
    return Arrays({"x": x, "label": np.arange(n) % 10}).source("train")


def equal(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(getattr(a, part)[name], getattr(b, part)[name])
        for part in ("values", "present")
        for name in MODALITIES
    )


def test_encode_marks_what_is_absent_or_none() -> None:
    for example in ({"label": 2}, {"label": 2, "x": None}):
        values, present = encode(example, MODALITIES)
        assert present == {"x": False, "label": True}
        np.testing.assert_array_equal(values["x"], np.zeros(2, np.float32))
        assert values["x"].dtype == np.float32 and values["label"].dtype == np.int32


def test_load_holds_every_example_in_order() -> None:
    data = load(source(), MODALITIES)
    assert len(data) == 10
    assert data.values["x"].shape == (10, 2) and data.values["x"].dtype == np.float32
    np.testing.assert_array_equal(data.values["label"], np.arange(10))
    np.testing.assert_array_equal(data.present["x"], np.arange(10) != 3)
    np.testing.assert_allclose(data.values["x"][:, 0], [0, 0.1, 0.2, 0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def test_load_up_to_a_limit() -> None:
    assert len(load(source(), MODALITIES, limit=4)) == 4
    assert len(load(source(), MODALITIES, limit=400)) == 10


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ({"label": [0, 1, 10]}, 'example 2, "label": a class must be from 0 to 9, not 10.'),
        ({"x": [[0, 1], [0, 2]]}, r'example 1, "x": values must be in \[0, 1\], not \[0, 2\].'),
        ({"x": [[0, np.nan]]}, 'example 0, "x": values must be'),
        ({"x": [[0, 1, 1]]}, r'example 0, "x": its modality promises float32\[2\], but encoded this as float32\[3\].'),
    ],
)
@pytest.mark.parametrize("how", ["load", "stream"])
def test_errors_name_example_and_modality(column: dict, sentence: str, how: str) -> None:
    bad = Arrays(column).source("train")
    with pytest.raises(ValueError, match="^" + sentence):
        load(bad, MODALITIES) if how == "load" else list(stream(bad, MODALITIES, 8, 0, 0, 1))


def test_an_empty_data_set_is_an_error() -> None:
    empty = Arrays({"label": []}).source("train")
    for call in (
        lambda: load(empty, MODALITIES),
        lambda: stream(empty, MODALITIES, 1, 0, 0, 1),
        lambda: order(0, 0, 0, 1),
    ):
        with pytest.raises(ValueError, match="^The data set has no examples.$"):
            call()


def test_order_is_a_line_of_whole_shuffled_epochs() -> None:
    line = order(7, 5, 0, 28)
    for epoch in range(4):
        np.testing.assert_array_equal(np.sort(line[7 * epoch : 7 * epoch + 7]), np.arange(7))
    assert len({tuple(line[7 * e : 7 * e + 7]) for e in range(4)}) == 4
    assert not np.array_equal(line, order(7, 6, 0, 28))


def test_order_of_any_stretch_is_that_stretch_of_the_line() -> None:
    line = order(7, 5, 0, 50)
    for start in range(0, 30):
        for length in (0, 1, 6, 7, 8, 20):
            np.testing.assert_array_equal(order(7, 5, start, start + length), line[start : start + length])


def test_order_of_one_example() -> None:
    np.testing.assert_array_equal(order(1, 0, 3, 8), np.zeros(5))


def test_order_far_along_costs_no_more() -> None:
    assert sorted(order(10, 0, 10**15, 10**15 + 10)) == list(range(10))


def test_order_never_changes_between_versions() -> None:
    """A checkpoint resumes with the examples that were due: the draw is part of the format."""
    np.testing.assert_array_equal(order(8, 0, 0, 16), ORDER_OF_SEED_0)


def test_epochs_cannot_be_spoilt_by_their_users() -> None:
    with pytest.raises(ValueError, match="read-only"):
        permutation(5, 0, 0)[0] = 3
    order(5, 0, 0, 5)[0] = -1
    assert -1 not in order(5, 0, 0, 5)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 23])
def test_batches_follow_from_seed_and_step(batch_size: int) -> None:
    data = load(source(), MODALITIES)
    steps, whole = zip(*batches(data, batch_size, seed=3, steps=6), strict=True)
    assert steps == tuple(range(6))
    labels = np.concatenate([batch.values["label"] for batch in whole])
    np.testing.assert_array_equal(labels, order(10, 3, 0, 6 * batch_size))
    resumed = list(batches(data, batch_size, seed=3, steps=6, start=4))
    assert [step for step, _ in resumed] == [4, 5]
    assert all(equal(a, b) for a, (_, b) in zip(whole[4:], resumed, strict=True))


def test_changing_a_batch_changes_no_other() -> None:
    data = load(source(), MODALITIES)
    for _, batch in batches(data, 10, seed=0, steps=2):
        batch.values["x"][:] = -1
    assert (data.values["x"] >= 0).all()


# Starting a worker takes seconds.
@pytest.mark.parametrize(
    ("batch_size", "workers"),
    [(1, 0), (4, 0), (23, 0), pytest.param(4, 1, marks=pytest.mark.slow), pytest.param(23, 2, marks=pytest.mark.slow)],
)
def test_stream_reads_the_batches_of_memory(batch_size: int, workers: int) -> None:
    expected = [batch for _, batch in batches(load(source(), MODALITIES), batch_size, seed=3, steps=7, start=2)]
    read = list(stream(source(), MODALITIES, batch_size, 3, 2, 7, workers))
    assert len(read) == 5
    assert all(equal(a, b) for a, b in zip(read, expected, strict=True))


def test_rows_of_all_processes_make_the_batch() -> None:
    whole = list(stream(source(), MODALITIES, 6, 0, 0, 3))
    parts = [list(stream(source(), MODALITIES, 6, 0, 0, 3, 0, slice(2 * i, 2 * i + 2))) for i in range(3)]
    for step in range(3):
        joined = np.concatenate([part[step].values["x"] for part in parts])
        np.testing.assert_array_equal(joined, whole[step].values["x"])


def test_stream_of_no_steps_is_empty() -> None:
    assert list(stream(source(), MODALITIES, 4, 0, 5, 5)) == []


def test_stream_can_be_left_early() -> None:
    read = stream(source(), MODALITIES, 4, 0, 0, 1_000_000)
    next(read)
    read.close()
    assert list(read) == []


@pytest.mark.slow
def test_errors_reach_us_from_a_worker() -> None:
    bad = Arrays({"label": [0, 1, 10]}).source("train")
    with pytest.raises(ValueError, match='example 2, "label": a class must be from 0 to 9, not 10'):
        list(stream(bad, MODALITIES, 8, 0, 0, 1, workers=1))
