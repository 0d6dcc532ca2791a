"""Kept splits: the same arrays, never those of other data or settings, remade when damaged, never in the way."""

import dataclasses
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmgen_jax.data import Arrays, Binarized, Missing, Paired, kept, load
from mmgen_jax.modalities import Audio, Image, Label, Text
from mmgen_jax.types import Batch, Source

MODALITIES = {"image": Image(2, 2, 1), "label": Label(10), "a/b": Text(8)}
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 1), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MMGEN_CACHE")
    return tmp_path / "mmgen_jax" / "splits"


class OnDisk:
    """Stands for a source that is read from files; counts what is read."""

    def __init__(self, fingerprint: str | None = "a", pixels: np.ndarray = PIXELS) -> None:
        self.fingerprint, self.pixels, self.reads = fingerprint, pixels, 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.reads += 1
        return {"image": self.pixels[i], "label": i, "a/b": "x" * i if i != 2 else None}

    def source(self, split: str) -> Source:
        return self


def reads(source: OnDisk | None = None, modalities: dict = MODALITIES, limit: int | None = None) -> int:
    """How many examples `load` reads."""
    source = source or OnDisk()
    load(source, modalities, limit)
    return source.reads


def assert_equal(a: Batch, b: Batch) -> None:
    for part in ("values", "present"):
        x, y = getattr(a, part), getattr(b, part)
        assert list(x) == list(y)
        for name in x:
            assert x[name].dtype == y[name].dtype
            np.testing.assert_array_equal(x[name], y[name])


def test_a_kept_split_is_the_same_and_reads_no_example() -> None:
    first = load(OnDisk(), MODALITIES)
    again = OnDisk()
    assert_equal(load(again, MODALITIES), first)
    assert again.reads == 0
    assert first.present["a/b"].tolist() == [True, True, False, True, True, True]
    load(again, MODALITIES).values["image"][:] = 0  # the caller's own: nothing on disk changes
    assert_equal(load(again, MODALITIES), first)


@pytest.mark.parametrize(
    "other",
    [
        {"source": OnDisk("b")},
        {"limit": 5},
        {"modalities": MODALITIES | {"label": Label(11)}},
        {"modalities": MODALITIES | {"a/b": Text(9)}},
        {"modalities": dict(reversed(MODALITIES.items()))},
        {"modalities": {"image": Image(2, 2, 1)}},
    ],
    ids=["data", "limit", "classes", "length", "order", "fewer"],
)
def test_what_is_different_is_read(other: dict[str, Any]) -> None:
    assert reads() == 6
    assert reads(**other) >= 5
    assert reads() == 0


def test_a_change_of_the_code_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads() == 6
    monkeypatch.setattr(kept, "_code", lambda: "another")
    assert reads() == 6


def test_networks_change_nothing() -> None:
    import flax.linen as nn

    assert reads() == 6
    assert reads(modalities=MODALITIES | {"image": Image(2, 2, 1, encoder=nn.Dense(3))}) == 0


@dataclasses.dataclass(frozen=True)
class Upside(Image):
    """A user's own modality, whose code may change."""


class Loud:
    size = 200

    def encode(self, text: str) -> list[int]:
        return [5 + ord(c) for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i - 5) for i in ids)


@pytest.mark.parametrize("own", [{"image": Upside(2, 2, 1)}, {"a/b": Text(8, vocabulary=Loud())}])
def test_nothing_is_kept_of_a_users_own_code(own: dict[str, Any], cache: Path) -> None:
    assert reads(modalities=MODALITIES | own) == reads(modalities=MODALITIES | own) == 6
    assert not cache.exists()


def test_nothing_is_kept_of_sources_that_do_not_say_what_they_hold(cache: Path) -> None:
    assert reads(OnDisk(None)) == reads(OnDisk(None)) == 6
    load(Arrays({"label": [1, 2]}).source("train"), {"label": Label(3)})
    assert not cache.exists()


def test_it_can_be_switched_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads()
    monkeypatch.setenv("MMGEN_CACHE", "off")
    assert reads() == 6 and reads(limit=3) == 3
    assert len(list(cache.iterdir())) == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def boast(path: Path) -> None:
    """A header that promises more than any memory holds."""
    data = path.read_bytes()
    assert b"(6, 2, 2, 1), }" + b" " * 12 in data
    path.write_bytes(data.replace(b"(6, 2, 2, 1), }" + b" " * 12, b"(6" + b"0" * 12 + b", 2, 2, 1), }"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda at: flip(at / "values-0.npy"),
        lambda at: flip(at / "present-2.npy"),
        lambda at: boast(at / "values-0.npy"),
        lambda at: (at / "values-1.npy").unlink(),
        lambda at: (at / "values-0.npy").write_bytes(b""),
        lambda at: (at / "values-0.npy").write_bytes((at / "values-0.npy").read_bytes()[:-3]),
        lambda at: np.save(at / "values-0.npy", np.array([{}], object), allow_pickle=True),
        lambda at: (at / kept.SUMS).unlink(),
        lambda at: (at / kept.SUMS).write_text("{"),
        lambda at: (at / kept.SUMS).write_text("[]"),
        lambda at: [file.unlink() for file in at.iterdir()],
    ],
)
def test_what_is_damaged_is_remade(damage: Any, cache: Path) -> None:
    first = load(OnDisk(), MODALITIES)
    (at,) = cache.iterdir()
    damage(at)
    source = OnDisk()
    assert_equal(load(source, MODALITIES), first)
    assert source.reads == 6
    assert reads() == 0
    assert list(cache.iterdir()) == [at]  # nothing is left beside it


def test_a_place_that_cannot_be_written_costs_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mmgen_jax").write_text("a file where the folder should be")
    assert reads() == 6
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.text.count("The encoded split is not kept for the next start: ") == 1


@pytest.mark.parametrize("fails", ["save", "rename"])
def test_a_full_disk_leaves_nothing(
    fails: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((np, "save", full) if fails == "save" else (os, "rename", full)))
        assert reads() == 6
    assert "No space left on device" in caplog.text
    assert list(cache.iterdir()) == []
    assert reads() == 6 and reads() == 0


def test_a_cache_that_may_only_be_read_is_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(30, "Read-only file system")

    assert reads() == 6
    monkeypatch.setattr(os, "utime", refuse)
    assert reads() == 0


def test_many_at_once_all_get_the_split(cache: Path) -> None:
    expected, got = load(OnDisk(None), MODALITIES), []
    threads = [threading.Thread(target=lambda: got.append(load(OnDisk(), MODALITIES))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    for data in got:
        assert_equal(data, expected)
    assert len(list(cache.iterdir())) == 1
    assert reads() == 0


def test_the_longest_unused_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    for age, fingerprint in ((30, "a"), (20, "b")):
        reads(OnDisk(fingerprint))
        new = max(cache.iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(new, (new.stat().st_mtime - age,) * 2)
    reads(OnDisk("a"))  # used: now newer than b
    reads(OnDisk("c"))
    assert len(list(cache.iterdir())) == 2
    assert reads(OnDisk("a")) == 0 and reads(OnDisk("c")) == 0 and reads(OnDisk("b")) == 6


def test_there_is_a_limit_to_their_size(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads(OnDisk("a"))
    (at,) = cache.iterdir()
    size = sum(file.stat().st_size for file in at.iterdir())
    monkeypatch.setattr(kept, "BYTES", int(1.5 * size))
    reads(OnDisk("b"))
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(kept, "BYTES", 100)  # less than one: not written at all
    reads(OnDisk("c"))
    assert len(list(cache.iterdir())) == 1


def test_digest_tells_parts_apart() -> None:
    assert kept.digest("ab", "c") != kept.digest("a", "bc")
    assert kept.digest("a", np.array([1, 2])) != kept.digest("a", np.array([2, 1]))
    assert kept.digest("a", None) is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda on_disk, n: Missing(on_disk, {"image": 0.5}, seed=n),
        lambda on_disk, n: Paired(on_disk, Relabelled(), seed=n),
        lambda on_disk, n: Binarized(on_disk, threshold=0.1 + n / 10),
    ],
    ids=["Missing", "Paired", "Binarized"],
)
def test_what_is_made_of_kept_data_is_kept_with_its_own_fields(wrap: Any) -> None:
    def fingerprint(data: OnDisk, n: int) -> str | None:
        return wrap(data, n).source("train").fingerprint

    assert fingerprint(OnDisk(), 0) == fingerprint(OnDisk(), 0) != OnDisk().fingerprint
    assert len({fingerprint(OnDisk(), 0), fingerprint(OnDisk(), 1), fingerprint(OnDisk("b"), 0)}) == 3
    assert fingerprint(OnDisk(None), 0) is None


class Relabelled(OnDisk):
    """Four examples for each label, as a second data set to pair with."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"label": i % 6, "other": i}


def test_audio_in_full(cache: Path) -> None:
    """The default folder and the file names are what the documentation says."""
    sounds = [{"sound": np.full(64, i, np.int16)} for i in range(3)]
    source = OnDisk()
    source.__class__ = type("Sounds", (OnDisk,), {"__getitem__": lambda self, i: sounds[i], "__len__": lambda self: 3})
    load(source, {"sound": Audio(64, rate=8000)})
    (at,) = cache.iterdir()
    assert sorted(file.name for file in at.iterdir()) == ["crc32.json", "present-0.npy", "values-0.npy"]
    assert len(json.loads((at / "crc32.json").read_text())) == 2
    np.testing.assert_array_equal(np.load(at / "values-0.npy")[:, 0, 0], np.arange(3, dtype=np.float32) / 32768)
