"""Checkpoints: exact, elastic, and never silently wrong."""

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.train.manifest import checksum, manifest
from mmgen_jax.types import TrainState


@partial(jax.jit, static_argnames="ema")
def make(step, ema=True):
    """A state with arrays of many dtypes and shapes, all different at every step."""
    keys = iter(jax.random.split(jax.random.key(step), 4))
    params = {
        "dense": {"kernel": jax.random.normal(next(keys), (16, 8)), "bias": jnp.zeros(8)},
        "half": jax.random.normal(next(keys), (3, 5)).astype(jnp.bfloat16),
    }
    stats = {
        "codebook": {
            "uses": jnp.arange(7) + step,
            "seen": jnp.arange(9) % 2 == 0,
            "byte": jnp.arange(3, dtype=jnp.uint8),
        }
    }
    opt = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)).init(params)
    opt = jax.tree.map(lambda x: x + jnp.asarray(step, x.dtype), opt)
    average = jax.tree.map(lambda x: x / 2, params) if ema else None
    return TrainState(jnp.asarray(step, jnp.int32), params, stats, opt, average)


def shapes(state, shard=lambda x: None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shard(x)), state)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def saved(tmp_path):
    """A folder with the checkpoints of steps 1, 2 and 3."""
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make(step))
    return tmp_path


@pytest.mark.parametrize("ema", [True, False])
def test_what_is_restored_is_what_was_saved(tmp_path, ema):
    state = make(5, ema=ema)
    with Checkpoints(tmp_path / "made" / "by_save") as checkpoints:
        assert checkpoints.restore(shapes(state)) is None and checkpoints.latest is None
        checkpoints.save(5, state)
        checkpoints.wait()
        assert checkpoints.latest == 5
        assert_equal(checkpoints.restore(shapes(state)), state)


def test_looking_for_checkpoints_makes_no_folder(tmp_path):
    with Checkpoints(tmp_path / "nothing") as checkpoints:
        assert checkpoints.steps == [] and checkpoints.restore(shapes(make(0))) is None
    assert not (tmp_path / "nothing").exists()


def test_the_optimiser_can_be_left_out(saved):
    state = make(3).replace(opt=None)
    assert_equal(Checkpoints(saved).restore(shapes(state)), state)


def test_a_step_can_be_asked_for(saved):
    assert_equal(Checkpoints(saved).restore(shapes(make(0)), step=2), make(2))
    with pytest.raises(ValueError, match=r"has no checkpoint of step 7; it has \[1, 2, 3\]"):
        Checkpoints(saved).restore(shapes(make(0)), step=7)
    damage(saved / "2")
    with pytest.raises(OSError, match="is whole: step 2: [^;]*$"):
        Checkpoints(saved).restore(shapes(make(0)), step=2)


def test_any_number_of_devices_restores_what_any_other_saved(tmp_path):
    def shard(count):
        mesh = jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=jax.devices()[:count])
        rows = lambda x: "data" if x.ndim == 2 and x.shape[0] % count == 0 else None  # noqa: E731
        return lambda x: NamedSharding(mesh, PartitionSpec(rows(x)) if x.ndim else PartitionSpec())

    state = make(1)
    sums = manifest(state)
    for step, count in enumerate((8, 1, 2), 1):
        with Checkpoints(tmp_path) as checkpoints:
            placed = jax.device_put(state, jax.tree.map(shard(count), state))
            assert manifest(placed) == sums  # the checksums do not know how the arrays are split
            checkpoints.save(step, placed)
    for count in (1, 2, 4, 8):
        restored = Checkpoints(tmp_path).restore(shapes(state, shard(count)))
        assert_equal(restored, state)
        kernel = restored.params["dense"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (16 // count, 8) and len(kernel.sharding.device_set) == count


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint8", "int8", "bool", "uint32"])
def test_every_single_bit_changes_both_checksums(dtype):
    x = np.asarray(jax.random.bits(jax.random.key(0), (2, 3)) % 2, dtype)
    before = checksum(jnp.asarray(x))
    assert before.shape == (2,) and before.dtype == jnp.uint32
    flips = []
    for i in range(x.nbytes):
        for bit in range(1 if dtype == "bool" else 8):
            raw = bytearray(x.tobytes())
            raw[i] ^= 1 << bit
            flips.append(np.frombuffer(bytes(raw), x.dtype).reshape(x.shape))
    after = jax.vmap(checksum)(jnp.asarray(np.stack(flips)))
    assert not np.any(np.asarray(after) == np.asarray(before))


def test_checksums_notice_what_moves():
    x = jnp.arange(12.0).reshape(3, 4)
    others = [x[::-1], x.T.reshape(3, 4), jnp.roll(x, 1), jnp.zeros_like(x)]
    assert len({tuple(np.asarray(checksum(y)).tolist()) for y in [x, *others]}) == 5


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_bit_anywhere_is_never_restored(saved, caplog):
    """Either it is noticed, and the step before restored instead, or it is where it changes nothing."""
    noticed = set()
    for path in files(saved / "3"):
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 2 if len(whole) < 2000 else 8).astype(int):
            changed = bytearray(whole)
            changed[at] ^= 1 << (int(at) % 8)
            path.write_bytes(changed)
            restored = Checkpoints(saved).restore(shapes(make(3)))
            assert_equal(restored, make(int(restored.step)))
            if restored.step == 2:
                noticed.add(path.parent.name)
                assert "3 is damaged" in caplog.messages[-1]
        path.write_bytes(whole)
    assert "d" in noticed  # the folder of the arrays' bytes


def test_every_byte_of_an_array_is_guarded(tmp_path):
    kernel = jax.random.normal(jax.random.key(0), (64, 64))
    state = TrainState(jnp.int32(0), {"kernel": kernel}, {}, ())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, state.replace(step=jnp.int32(1)))
    (path,) = [path for path in files(tmp_path / "2") if kernel.tobytes()[:64] in path.read_bytes()]
    whole = path.read_bytes()
    start = whole.index(kernel.tobytes()[:64])
    for at in np.random.default_rng(0).integers(start, start + kernel.nbytes, 8):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        assert Checkpoints(tmp_path).restore(shapes(state)).step == 0
    path.write_bytes(whole)
    assert Checkpoints(tmp_path).restore(shapes(state)).step == 1


@pytest.mark.parametrize("damage", ["truncate", "empty", "delete"])
def test_files_cut_short_or_gone(saved, damage):
    for path in files(saved / "3"):
        whole = path.read_bytes()
        path.unlink() if damage == "delete" else path.write_bytes(
            whole[: len(whole) // 2 if damage == "truncate" else 0]
        )
        restored = Checkpoints(saved).restore(shapes(make(3)))
        assert_equal(restored, make(int(restored.step)))
        path.write_bytes(whole)


def damage(checkpoint):
    for path in (checkpoint / "state" / "d").iterdir():
        path.write_bytes(b"?" * path.stat().st_size)


def test_damage_is_told_in_one_line_and_nothing_else(saved, caplog, capfd):
    damage(saved / "3")
    with caplog.at_level(logging.DEBUG):
        assert Checkpoints(saved).restore(shapes(make(3))).step == 2
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert capfd.readouterr().err.count("\n") <= 1


def test_none_is_left(saved):
    for step in ("1", "2", "3"):
        damage(saved / step)
    with pytest.raises(OSError, match=r"no checkpoint in .* is whole: step 3: .*; step 2: .*; step 1: "):
        Checkpoints(saved).restore(shapes(make(3)))
    assert {path.name for path in saved.iterdir()} == {"1", "2", "3"}  # they are not deleted


def test_training_goes_on_over_a_damaged_checkpoint_which_is_kept_aside(saved):
    damage(saved / "3")
    with Checkpoints(saved, keep=1) as checkpoints:
        assert checkpoints.restore(shapes(make(3))).step == 2
        assert checkpoints.steps == [1, 2, 3]  # reading has moved nothing
        checkpoints.save(3, make(3))
        checkpoints.wait()
        assert checkpoints.steps == [3]
        assert_equal(checkpoints.restore(shapes(make(3))), make(3))
    assert [path for path in saved.iterdir() if path.name.startswith("3.damaged-") and files(path)]


def test_an_older_damaged_checkpoint_does_not_stop_saving(saved):
    for path in files(saved / "1"):
        path.write_bytes(b"")
    with Checkpoints(saved, best="loss") as checkpoints:
        checkpoints.save(4, make(4), {"loss": 1.0})
    assert_equal(Checkpoints(saved).restore(shapes(make(4))), make(4))


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda s: s.replace(ema=None), "ema/dense/bias is .* there and nothing here"),
        (lambda s: s.replace(params={**s.params, "new": jnp.zeros(2)}), "params/new is nothing there"),
        (
            lambda s: s.replace(params={**s.params, "half": s.params["half"].astype(jnp.float32)}),
            "params/half is .*bfloat16",
        ),
        (lambda s: s.replace(params={**s.params, "half": s.params["half"].T}), r"params/half is .*\[3, 5\]"),
    ],
)
def test_a_checkpoint_of_another_model(saved, change, text):
    with pytest.raises(ValueError, match=f"is of a different model: {text}"):
        Checkpoints(saved).restore(shapes(change(make(3))))


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    values = {1: 5.0, 2: 1.0, 3: float("nan"), 4: 3.0, 5: None, 6: 2.0}
    for best, expected in ((None, [5, 6]), ("score", [1, 5, 6]), ("-score", [2, 5, 6])):
        with Checkpoints(tmp_path / str(best), keep=2, best=best) as checkpoints:
            for step, value in values.items():
                checkpoints.save(step, make(step), {} if value is None else {"score": value})
            checkpoints.wait()
            assert checkpoints.steps == expected
        with Checkpoints(tmp_path / str(best), keep=2, best=best) as checkpoints:  # also after a restart
            checkpoints.save(7, make(7), {"score": 2.5})
            checkpoints.wait()
            assert checkpoints.steps == [*expected[:-2], 6, 7]


def test_a_best_metric_that_is_not_measured_is_told(tmp_path, caplog):
    with Checkpoints(tmp_path, best="-fid") as checkpoints:
        checkpoints.save(1, make(1))
        assert caplog.messages == []
        checkpoints.save(2, make(2), {"kid": 1.0})
        assert caplog.messages == ["best is '-fid', but the metrics are kid"]


def test_saving_a_step_twice_changes_nothing(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for _ in range(3):
            checkpoints.save(1, make(1))
        checkpoints.wait()
        before = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
        checkpoints.save(1, make(1))
        checkpoints.wait()
        assert {path: path.stat().st_mtime_ns for path in files(tmp_path)} == before


def test_donating_the_state_right_after_saving(tmp_path):
    advance = jax.jit(lambda state: jax.tree.map(lambda x: ~x if x.dtype == bool else x + 1, state), donate_argnums=0)
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        state, expected = make(0), []
        for step in range(4):
            expected.append(jax.device_get(jax.tree.map(jnp.copy, state)))
            checkpoints.save(step, state)
            for _ in range(3):
                state = advance(state)
    for step, state in reversed(list(enumerate(expected))):
        assert_equal(Checkpoints(tmp_path).restore(shapes(make(0))), state)
        (tmp_path / str(step)).rename(tmp_path / f"{step}.hidden")


def test_a_failed_save_is_told_and_costs_no_checkpoint(saved, monkeypatch):
    import tensorstore

    def fail(*args, **kwargs):
        raise RuntimeError("the disk is full")

    with pytest.raises(OSError, match="could not save the checkpoint of step 4 .*the disk is full"):
        with monkeypatch.context() as patch, Checkpoints(saved, keep=1) as checkpoints:
            patch.setattr(tensorstore, "open", fail)
            checkpoints.save(4, make(4))
    assert Checkpoints(saved).steps == [1, 2, 3]
    assert_equal(Checkpoints(saved).restore(shapes(make(3))), make(3))


KILLED = """
import sys, jax
sys.path.insert(0, sys.argv[2])
from test_train_checkpoint import make
from mmgen_jax.train.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
step = checkpoints.latest or 0
while True:
    step += 1
    checkpoints.save(step, make(step))
    print(step, flush=True)
"""


@pytest.mark.slow
def test_kill_9_while_saving(tmp_path):
    code = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    last = 0
    for saves, delay in ((1, 0.01), (2, 0.0), (3, 0.02), (2, 0.04)):
        with subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            started = [int(process.stdout.readline()) for _ in range(saves)]
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        restored = Checkpoints(tmp_path).restore(shapes(make(0)))
        last = 0 if restored is None else int(restored.step)
        assert last >= started[-1] - 1  # a save begins when the one before it is on the disk
        assert restored is None or assert_equal(restored, make(last)) is None
    assert last > 0
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(last + 1, make(last + 1))
    assert all(path.name.isdigit() for path in tmp_path.iterdir())  # what the killed ones left is gone
