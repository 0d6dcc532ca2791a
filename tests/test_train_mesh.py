"""Meshes: sizes, rules, what is split over what, and errors in one sentence."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from train_fakes import Net

from mmgen_jax.train.mesh import Mesh, local_rows, put, put_everywhere, replicated, stacked_rows
from mmgen_jax.types import TrainState

BIG = (64, 128)


def make(**sizes):
    return Mesh(**sizes).make(jax.devices())


def test_data_takes_all_devices_that_are_left():
    assert dict(make().shape) == {"data": 8, "fsdp": 1, "model": 1}
    assert dict(make(fsdp=2, model=2).shape) == {"data": 2, "fsdp": 2, "model": 2}
    assert dict(make(data=1, fsdp=3).shape) == {"data": 1, "fsdp": 3, "model": 1}  # of eight, the first three


def test_axes_are_auto_because_make_mesh_is_not():
    assert make().axis_types == (AxisType.Auto,) * 3
    assert jax.make_mesh((8,), ("data",)).axis_types == (AxisType.Explicit,)


@pytest.mark.parametrize(
    "rules, path, shape, expected",
    [
        ((), "params/dense/kernel", BIG, P("fsdp", "model")),
        ((), "params/dense/kernel", (64, 127), P("fsdp", None)),  # 127 does not divide
        ((), "params/dense/kernel", (63, 127), P(None, None)),
        ((), "params/dense/bias", (64,), P()),  # small
        ((), "step", (), P()),
        ((), "params/conv/kernel", (3, 3, 64, 32), P(None, None, "fsdp", "model")),
        (((r"kernel", "fsdp"),), "params/dense/kernel", BIG, P(None, "fsdp")),  # the largest axis
        (((r"kernel", "replicate"),), "params/dense/kernel", BIG, P()),
        (((r"kernel", "replicate"),), "opt/0/mu/dense/kernel", BIG, P()),
        (((r"decoder/.*kernel", "fsdp"), (r"kernel", "replicate")), "ema/decoder/a/kernel", BIG, P(None, "fsdp")),
        (((r"decoder/.*kernel", "fsdp"), (r"kernel", "replicate")), "ema/encoder/a/kernel", BIG, P()),  # first match
    ],
)
def test_specs(rules, path, shape, expected):
    mesh = Mesh(fsdp=2, model=2, rules=rules)
    assert mesh.spec(path, shape, mesh.make(jax.devices())) == expected


def test_parameters_moments_and_averages_are_split_alike_and_really_split():
    mesh = Mesh(data=2, fsdp=2, model=2)
    devices = mesh.make(jax.devices())

    def create(key):
        return TrainState.create(Net(width=512), optax.adam(1e-3), key, ema=True)

    shardings = mesh.shardings(jax.eval_shape(create, jax.random.key(0)), devices)
    state = jax.jit(create, out_shardings=shardings)(jax.random.key(0))
    moments = state.opt[0]
    for tree in (state.params, state.ema, moments.mu, moments.nu):
        assert tree["dense"]["kernel"].addressable_shards[0].data.shape == (4, 256)
        assert tree["dense"]["bias"].addressable_shards[0].data.shape == (512,)
    assert state.step.is_fully_replicated and moments.count.is_fully_replicated


def test_rows_of_a_batch_are_split_over_data_and_fsdp():
    stacked = stacked_rows(make(data=2, fsdp=2, model=2), 8)
    x = np.arange(3 * 8 * 5, dtype=np.float32).reshape(3, 8, 5)
    placed = put({"x": x}, stacked, 8)["x"]
    np.testing.assert_array_equal(placed, x)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(3, 2, 5)}
    assert local_rows(stacked, 8) == slice(0, 8)


def test_put_everywhere_makes_whole_copies():
    mesh = make()
    x = put_everywhere({"x": np.arange(6.0, dtype=np.float32)}, mesh)["x"]
    assert x.sharding == replicated(mesh) and {shard.data.shape for shard in x.addressable_shards} == {(6,)}
    assert put_everywhere(None, mesh) is None


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: Mesh(fsdp=0), "mesh.fsdp is 0, but must be at least 1"),
        (lambda: Mesh(data=-2), "mesh.data is -2, but must be at least 1 .or, for data, -1"),
        (lambda: Mesh(model=-1), "mesh.model is -1"),
        (lambda: Mesh(rules=(("kernel", "columns"),)), "'kernel' has tactic 'columns'; it must be one of"),
        (lambda: Mesh(rules=(("(kernel", "fsdp"),)), r"'\(kernel' is not a regular expression"),
        (lambda: make(data=4, fsdp=4), "mesh.data=4, mesh.fsdp=4, mesh.model=1 needs 16 devices, but there are 8"),
        (lambda: make(fsdp=3), "mesh.fsdp=3, mesh.model=1 needs a multiple of 3 devices, but there are 8"),
        (lambda: make(model=16), "needs a multiple of 16 devices, but there are 8"),
        (lambda: stacked_rows(make(), 12), "batch_size is 12, but must be a multiple of mesh.data . mesh.fsdp = 8"),
    ],
)
def test_errors_name_the_field_and_what_is_allowed(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_rules_may_come_as_lists_from_json():
    assert Mesh(rules=[["kernel", "fsdp"]]).spec("kernel", BIG, make(fsdp=2)) == P(None, "fsdp")
