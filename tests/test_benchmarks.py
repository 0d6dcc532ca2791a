"""The benchmarks run in their quick modes and write what they promise; how long anything takes is not tested."""

import json
import runpy
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from mmgen_jax.types import Batch, TrainState

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The names that a script defines."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return lambda name: runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture
def record(script, tmp_path, capsys):
    """What a script writes in its quick mode."""

    def run(name, *args):
        out = tmp_path / f"{name}.json"
        script(name)["main"]([*args, "--quick", "--out", str(out)])
        written = json.loads(out.read_text())
        assert json.loads(capsys.readouterr().out) == written
        assert str(tmp_path) not in written["command"] and written["command"].startswith("python -m benchmarks ")
        assert written["device"] and written["versions"]["jax"] == jax.__version__ and written["load_before"] >= 0
        return written["rows"]

    return run


def test_it_lists_and_runs_them(monkeypatch, capsys):
    main = runpy.run_path(str(FOLDER / "__main__.py"))["main"]
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    main()
    listed = capsys.readouterr().out
    assert "jit " in listed and "loop " in listed and "record" not in listed and "worker" not in listed
    monkeypatch.setattr(sys, "argv", ["benchmarks", "loop", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and "usage: python -m benchmarks loop" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["benchmarks", "lop"])
    with pytest.raises(SystemExit, match="there is no benchmark 'lop'"):
        main()


def test_every_script_has_help(script, capsys):
    scripts = runpy.run_path(str(FOLDER / "__main__.py"))["scripts"]()
    for name in scripts.keys() - {"versus_multivae"}:  # whose --help is a command of its own
        with pytest.raises(SystemExit):
            script(name)["main"](["--help"])
        assert f"usage: python -m benchmarks {name}" in capsys.readouterr().out


def test_quick_takes_the_place_of_defaults_only(script):
    record = script("record")
    flags = record["parser"]("x", "About x.")
    flags.add_argument("--steps", type=int, default=100)
    assert record["parse"](flags, ["--quick"], steps=1).steps == 1
    assert record["parse"](flags, ["--quick", "--steps", "5"], steps=1).steps == 5
    options = record["parse"](flags, ["--out", "/a/place", "--steps", "7"])
    assert options.command == "python -m benchmarks x --out FILE --steps 7"


def test_spread_and_rounding(script):
    record = script("record")
    assert record["spread"]([3.0, 1.0, 2.0], 10) == {"median": 20, "low": 10, "high": 30, "runs": 3}
    assert record["rounded"]({"a": {"b": 1.23456, "n": 123456}, "c": "x"}) == {"a": {"b": 1.235, "n": 123456}, "c": "x"}


def test_flops_of_products_and_loops(script):
    flops = script("flops")["flops"]
    x, w = jnp.ones((8, 16)), jnp.ones((5, 16, 16))
    product = 2 * 8 * 16 * 16

    def layers(x, w):
        return lax.scan(lambda x, w: (x @ w, None), x, w)[0].sum()

    def of(f, *args):
        return flops(jax.make_jaxpr(f)(*args))

    assert of(jax.jit(layers), x, w) == 5 * product
    assert of(jax.grad(layers, (0, 1)), x, w) == 3 * 5 * product
    assert of(jax.grad(jax.checkpoint(layers), (0, 1)), x, w) == 4 * 5 * product  # the forward pass twice
    assert of(lambda i: lax.cond(i > 0, lambda: x @ w[0], lambda: x), 1) == product
    assert of(lambda: lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ w[0], x)) == product
    assert of(lambda: jnp.einsum("bik,bjk->bij", jnp.ones((3, 4, 5)), jnp.ones((3, 6, 5)))) == 2 * 3 * 4 * 6 * 5


def test_flops_of_convolutions(script):
    flops = script("flops")["flops"]
    numbers = ("NHWC", "HWIO", "NHWC")
    x, w = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))

    def conv(x, w):
        return lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=numbers)

    forward = 2 * (2 * 4 * 4 * 6) * (3 * 3 * 4)
    assert flops(jax.make_jaxpr(conv)(x, w)) == forward
    both = flops(jax.make_jaxpr(jax.grad(lambda x, w: conv(x, w).sum(), (0, 1)))(x, w))
    assert both == 3 * forward  # the zeros between the gradients of a strided convolution are not counted


def test_flops_of_a_depthwise_convolution(script):
    flops = script("flops")["flops"]
    numbers = ("NHWC", "HWIO", "NHWC")
    x, w = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 1, 4))

    def conv(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=4)

    assert flops(jax.make_jaxpr(conv)(x, w)) == 2 * (2 * 8 * 8 * 4) * (3 * 3)


def test_peaks(script):
    peak = script("flops")["peak"]
    assert peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989.4e12
    assert peak("TPU v5 lite", "bfloat16") == 197e12 and peak("TPU v5", "bfloat16") == 459e12
    assert peak("cpu", "float32") is None and peak("TPU v4", "float32") is None


def test_dit_has_the_published_multiplications(script):
    """DiT-S/2 has 6.06 G multiply-adds a forward pass; a training step is three times that, and 2 FLOPs each."""
    jit = script("jit")
    options = jit["argparse"].Namespace(batch=2, dtype=None, remat="full")
    bare = jit["Bare"](jit["experiment"]("DiT-S", options))
    _, row = jit["traced"](bare, bare.state_shapes(), bare.resident())
    assert row["gflop_per_step"] == pytest.approx(6 * 6.06 * 2, rel=0.01)  # none of remat's
    assert row["batch"] == 2 and row["parameters"] == pytest.approx(32.9e6, rel=0.01)


def test_jit(record, monkeypatch):
    import flops

    monkeypatch.setitem(flops.PEAKS, "cpu", {"float32": 2.0})
    cache = jax.config.jax_compilation_cache_dir
    rows = record("jit", "--traced", "tiny")
    assert jax.config.jax_compilation_cache_dir == cache
    row, traced = rows["tiny"], rows["tiny, traced"]
    assert row["compilations"] == 1
    assert row["step_ms"]["low"] <= row["step_ms"]["median"] <= row["step_ms"]["high"]
    assert all(row[name] > 0 for name in ("trace_s", "lower_s", "compile_s", "compile_cached_s", "first_ms"))
    assert row["mib_peak"] >= row["mib_arguments"] > 0
    assert {name: traced[name] for name in ("parameters", "batch", "gflop_per_step")}.items() <= row.items()
    assert row["mfu"] == pytest.approx(row["gflop_per_s"] / 2000, rel=1e-3)


def test_the_cache_of_jit_keeps_what_is_compiled(script):
    jit = script("jit")
    with jit["empty_cache"]():
        folder = Path(jax.config.jax_compilation_cache_dir)
        assert not list(folder.glob("*"))
        jax.jit(lambda x: x + 17)(np.ones(3)).block_until_ready()
        assert list(folder.glob("*"))


def test_a_run_that_is_not_finite_is_not_timed(script):
    script("bare")
    from bare import Bare, run
    from train_fakes import Net

    import mmgen_jax as mm

    bare = Bare(mm.Experiment(model=Net(breaks_at=2), data=mm.data.Arrays({}), steps=10, batch_size=8))
    state, resident = bare.state(), bare.resident()
    program = bare.program(state)
    state, _ = run(program, state, resident, bare.rows(), 2)
    with pytest.raises(RuntimeError, match="step 3 of 6 was the last with finite numbers"):
        run(program, state, resident, bare.rows(), 4)


def test_gan(record):
    (row,) = record("gan").values()
    assert row["critic_steps"] == 2 and row["batch"] == 4 and row["critic_parameters"] > 0
    for way in ("fused", "separate"):
        assert row[f"{way}_d_images_per_s"]["high"] == pytest.approx(8e3 / row[f"{way}_ms"]["low"], rel=1e-2)
    assert row["times_faster"] > 0


def test_the_ways_of_a_game_end_alike(script):
    gan = script("gan")
    m, tx = gan["model"]("tiny", "float32"), optax.sgd(0.1)
    images = jax.random.uniform(jax.random.key(1), (8, 6, 6, 1))
    whole = Batch({"image": images}, {"image": jnp.ones(8, bool)})
    parts = [whole.take(jnp.arange(i, 8, 2)) for i in range(2)]
    states = [
        gan[way](m, tx)(jax.jit(lambda key: TrainState.create(m, tx, key))(jax.random.key(0)), x)
        for way, x in (("fused", whole), ("separate", parts))
    ]
    assert all(int(state.step) == 1 for state in states)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *(s.params for s in states))


def test_the_games_that_are_measured(script):
    """None is run here: millions of numbers of generator and critic, so that no change of them goes unnoticed."""
    model, millions = script("gan")["model"], {}
    for case in ("sngan_32", "stylegan2_128", "r3gan_32"):
        params, _ = jax.eval_shape(model(case, "bfloat16").init, jax.random.key(0))
        counts = (sum(x.size for x in jax.tree.leaves(params[player])) for player in ("generator", "critic"))
        millions[case] = tuple(round(count / 1e6, 1) for count in counts)
    assert millions == {"sngan_32": (1.2, 1.1), "stylegan2_128": (24.5, 24.1), "r3gan_32": (20.7, 20.8)}


@pytest.mark.slow
def test_loop(record):
    (row,) = record("loop").values()
    assert row["fit_ms"]["runs"] == 1 and row["ratio_of_medians"] > 0


@pytest.mark.parametrize("what, rows", [("masks", ["S"]), ("remat", ["S, None", "S, dots", "S, names", "S, full"])])
@pytest.mark.slow
def test_sampling(record, what, rows):
    assert list(record("sampling", what)) == rows


def test_data(record):
    rows = record("data")
    ways = ["on the device", "in memory", "decoded", "streamed, 0", "training, on the device", "training, streamed, 0"]
    assert list(rows) == [f"tiny: {way}" for way in ways]
    for row in rows.values():
        rate = row["examples_per_s"]
        assert (rate["median"] if isinstance(rate, dict) else rate) > 0
    assert all(0 <= rows[f"tiny: {way}"]["share_waiting"] <= 1 for way in ways[4:])


@pytest.mark.slow
def test_start(record):
    row = record("start")["tiny"]
    assert set(row) == {f"{what}_{how}_s" for what in ("train", "sample") for how in ("cold", "warm")}
    assert all(seconds["runs"] == 1 and seconds["median"] > 0 for seconds in row.values())


def test_start_says_what_a_process_that_failed_has_said(script, tmp_path):
    start = script("start")
    process = start["mmgen"](tmp_path, "train", tmp_path / "nothing.py", "--workdir", tmp_path / "run")
    with pytest.raises(RuntimeError, match="there is no experiment file"):
        start["seconds_until"](lambda: False, process, 0.0)


def test_checkpoint(record):
    (row,) = record("checkpoint").values()
    assert row["parameters"] == 10 * 32**2
    assert row["state_mb"] == pytest.approx(3 * 4 * row["parameters"] / 1e6, rel=1e-3)
    assert row["blocking_s"]["median"] <= row["save_s"]["median"]
    assert row["share_of_training"]["high"] < 1


def test_metrics(record):
    rows = record("metrics")
    assert {name: row["examples"] for name, row in rows.items()} == {
        "frechet": 300,
        "kernel, subsets": 300,
        "kernel, all": 100,
        "neighbours, precision and recall": 100,
        "neighbours, density and coverage": 100,
    }
    assert all(row["seconds"]["runs"] == 1 and row["gflop_per_s"] > 0 and row["mib_more"] >= 0 for row in rows.values())
    assert rows["frechet"]["mib_features"] == pytest.approx(2 * 4 * 300 * 16 / 2**20, rel=1e-3)


def test_memory_is_watched(script):
    def much():
        time.sleep(0.05)  # it is looked at every hundredth of a second
        x = np.ones(2**23)
        time.sleep(0.1)
        return x

    seconds, more = script("metrics")["watched"](much)
    assert seconds > 0.15 and (more > 50 or not Path("/proc/self/statm").exists())


HLO = """
  %all-reduce.1 = (f32[64,64]{1,0}, bf16[8]{0}, pred[]) all-reduce(%a, %b, %c), replica_groups={{0,1,2,3}}
  ROOT %all-gather.2 = f32[4,128]{1,0} all-gather(%d), dimensions={0}
  %reduce-scatter = s32[16]{0} reduce-scatter(%e), dimensions={0}, to_apply=%add
  %fusion = f32[64,64]{1,0} fusion(%all-gather.2), kind=kLoop, calls=%all-reduce.fused
  %get-tuple-element = f32[64,64]{1,0} get-tuple-element(%all-reduce.1), index=0
"""


def test_collectives_are_read_from_hlo(script):
    names = script("collectives")
    found = [("all-reduce", 4 * 64 * 64 + 2 * 8 + 1), ("all-gather", 4 * 4 * 128), ("reduce-scatter", 4 * 16)]
    assert list(names["collectives"](HLO)) == found
    whole = 1200.0  # of four devices: an all-reduce is a reduce-scatter, of which each has 300 bytes, and an all-gather
    sent = {kind: names["sent"](kind, b, 4) for kind, b in (("reduce-scatter", whole / 4), ("all-gather", whole))}
    assert sent == {"reduce-scatter": 900, "all-gather": 900} and names["sent"]("all-reduce", whole, 4) == 1800
    assert names["sent"]("collective-permute", 7, 4) == 7 and names["sent"]("all-reduce", whole, 1) == 0


def test_collectives_of_compiled_programs(script):
    collectives = script("collectives")["collectives"]
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    split, whole = jax.NamedSharding(mesh, jax.P("data")), jax.NamedSharding(mesh, jax.P())
    x = jax.device_put(np.ones((16, 4), np.float32), split)
    gather = jax.jit(lambda x: 2 * x, out_shardings=whole).lower(x).compile()
    assert list(collectives(gather.as_text())) == [("all-gather", 4 * 16 * 4)]
    reduce = jax.jit(lambda x: x.sum(0), out_shardings=whole).lower(x).compile()
    assert list(collectives(reduce.as_text())) == [("all-reduce", 4 * 4)]


@pytest.mark.slow
def test_scaling(record):
    rows = record("scaling", "--processes", "2")
    forms = ("jit", "shard_map", "fsdp", "pmap", "weak")
    places = ("1 device", "2 devices", "2 processes")
    names = [f"{where}, {form}" for where in places for form in forms]
    assert list(rows) == [name for name in names if name != "2 processes, pmap"]
    for where in places[1:]:
        assert rows[f"{where}, weak"]["sent_mb"] == rows[f"{where}, jit"]["sent_mb"]
        if "devices" in where:
            assert rows[f"{where}, pmap"]["sent_over_least"] == pytest.approx(1, rel=0.01)
        for form in ("jit", "shard_map"):
            row = rows[f"{where}, {form}"]
            assert "all-gather" not in row["collectives"]  # whole parameters are nowhere sent
            assert row["sent_over_least"] == pytest.approx(1, rel=0.01)
            assert row["mib_state"] == pytest.approx(rows["1 device, jit"]["mib_state"])
        split = rows[f"{where}, fsdp"]
        assert split["mib_state"] == pytest.approx(rows["1 device, jit"]["mib_state"] / 2, rel=0.01)


def test_scaling_does_not_accept_other_results(script, tmp_path):
    difference = script("scaling")["difference"]
    np.savez(tmp_path / "jit.npz", w=np.array([1.0, -2.0]))
    assert difference(tmp_path, "jit", {"w": np.array([1.0, -2.00001])}) == pytest.approx(5e-6, rel=1e-2)
    with pytest.raises(RuntimeError, match="jit ends 0.05 from what one device computes"):
        difference(tmp_path, "jit", {"w": np.array([1.1, -2.0])})
    with pytest.raises(RuntimeError, match="jit ends nan"):
        difference(tmp_path, "jit", {"w": np.array([np.nan, -2.0])})


def test_table(script, tmp_path):
    rows = {
        "a": {"step_ms": {"median": 2.0, "low": 1.5, "high": 3.25, "runs": 5}, "parameters": 12345},
        "b": {"step_ms": {"median": 2.5, "low": 2.5, "high": 2.5, "runs": 1}, "mfu": 0.12345, "text": "1 all-reduce"},
        "c": {"step_ms": 3.0},  # measured once, as a whole
    }
    head = {"command": "python -m benchmarks x", "device": "a device", "versions": {"jax": "1"}, "load_before": 0.5}
    (tmp_path / "x-cpu.json").write_text(json.dumps(head | {"rows": rows}))
    (tmp_path / "other.json").write_text('{"models": {}}')
    script("table")["main"](["--folder", str(tmp_path)])
    page = (tmp_path / "README.md").read_text()
    assert "## x-cpu\n\n`python -m benchmarks x`\n\na device; load before: 0.50; jax 1\n" in page
    assert "| | step ms | parameters | mfu | text |\n|---|---|---|---|---|\n" in page
    assert "| a | 2 (1.5 to 3.25) | 12,345 |  |  |\n| b | 2.5 |  | 0.1235 | 1 all-reduce |\n| c | 3 |" in page
    assert page.endswith("Also here: `other.json`.\n")
    before = page
    script("table")["main"](["--folder", str(tmp_path)])
    assert (tmp_path / "README.md").read_text() == before
