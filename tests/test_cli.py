"""The command line: every command on a tiny run, and every mistake a user can make, told in one sentence."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import mmgen_jax
import mmgen_jax.__main__ as cli
from mmgen_jax.config import from_json, load_experiment, to_json
from mmgen_jax.data import Digits
from mmgen_jax.run import load_config, load_run

EXPERIMENT = """
import dataclasses
import numpy as np
from mmgen_jax.config import Experiment
from mmgen_jax.modalities import Label, Vector
from mmgen_jax.vae import VAE

@dataclasses.dataclass(frozen=True)
class Toys:
    n: int = 32

    def source(self, split):
        rng = np.random.default_rng(0)
        return [{"point": rng.normal(size=2), "label": i % 3} for i in range(self.n)]

@dataclasses.dataclass(frozen=True)
class Size:
    factor: int = 1

    def __call__(self, model, variables, data, key):
        return {"latent": float(model.latent * self.factor), "examples": float(len(data.test))}

modalities = {"point": Vector(2, features=4), "label": Label(3, names=("a", "b", "c"), features=4)}
experiment = Experiment(model=VAE(modalities=modalities, latent=2), data=Toys(), steps=4, batch_size=8,
                        steps_per_call=2, save_every=2, log_every=2, evaluators=(Size(),))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiments") / "toys.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    """A finished run, not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "toys"
    assert cli.main(["train", str(file), "--workdir", str(workdir), "--model.latent", "3"]) == 0
    return workdir


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def mistake(capsys):
    """`mistake(*args)`: what `mmgen args` says about it, in one line and without a traceback."""

    def of(*args):
        capsys.readouterr()
        assert cli.main([str(arg) for arg in args]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("mmgen: ") and err.count("\n") == 1 and "Traceback" not in err
        return err.removeprefix("mmgen: ").strip()

    return of


def test_training_from_the_command_line(trained, file):
    experiment = load_config(trained, file)
    assert experiment.model.latent == 3 and experiment.steps == 4
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["2", "4"]
    assert json.loads((trained / "evaluation.json").read_text())["values"] == {"latent": 3, "examples": 32}


def test_training_goes_on_where_it_was(run, file):
    shutil.rmtree(run / "checkpoints" / "4")
    command = ["train", str(file), "--workdir", str(run), "--model.latent=3", "--log-every", "1", "--mesh.data", "2"]
    assert cli.main(command) == 0
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[:3] == [2, 3, 4] and (run / "checkpoints" / "4").is_dir()
    assert len((run / "starts.jsonl").read_text().splitlines()) == 2


def test_the_fields_of_an_experiment_file(file, capsys):
    assert cli.main(["train", str(file), "--help"]) == 0
    out = capsys.readouterr().out
    assert "--workdir" in out and "--model.modalities.point.dim 2" in out and "number of optimiser steps" in out
    assert cli.main(["train", "--help"]) == 0
    assert "--workdir" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args, text",
    [
        (["none.py", "--workdir", "w"], "there is no experiment file none.py"),
        (["{file}"], "train needs an experiment file and a --workdir"),
        (["--workdir", "w"], "train needs an experiment file and a --workdir"),
        (["{file}", "--workdir", "w", "--stesp", "3"], "there is no field 'stesp' that can be set; did you mean steps"),
        (["{file}", "--workdir", "w", "--latent", "3"], "did you mean model.latent?"),
        (["{file}", "--workdir", "w", "--steps", "many"], "--steps must be a whole number, not 'many'"),
        (["{file}", "--workdir", "w", "--steps", "0"], "steps must be a whole number of at least 1, not 0"),
        (["{file}", "--workdir", "w", "--model.latent", "0"], "latent is 0, but must be at least 1"),
        (["{file}", "--workdir", "w", "--batch-size", "9"], "batch_size is 9, but must be a multiple of"),
        (["{file}", "--workdir", "w", "--mesh.data", "9"], "there are 8"),
        (["{file}", "--workdir", "w", "--distributed", "host:1"], "--distributed takes nothing, or COORDINATOR COUNT"),
        (["{file}", "--workdir", "w", "--distributed", "host:1", "x", "0"], "--distributed takes nothing, or"),
        (["{file}", "--workdir", "{file}"], "toys.py is a file"),
        (["{file}", "--workdir", "{folder}"], "is not empty and not a run directory"),
        (["{file}", "--workdir", "/proc/no/run"], "the run directory /proc/no/run cannot be written to"),
        (["{file}", "--workdir", "{trained}"], "holds another experiment: model.latent is 3 there and 2 here"),
    ],
)
def test_mistakes_in_training(args, text, file, trained, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"file": file, "folder": file.parent, "trained": trained}
    assert text in mistake("train", *(arg.format(**places) for arg in args))
    assert list(tmp_path.iterdir()) == []  # found before anything is written


def test_a_bug_keeps_its_traceback(tmp_path, file):
    (tmp_path / "bug.py").write_text("undefined\n")
    with pytest.raises(NameError):
        cli.main(["train", str(tmp_path / "bug.py"), "--workdir", str(tmp_path / "w")])
    (tmp_path / "bug.py").write_text("import numpy as np\nnp.zeros(3).reshape(2)\n")
    with pytest.raises(ValueError, match="cannot reshape"):  # a library's error is no sentence of ours
        cli.main(["train", str(tmp_path / "bug.py"), "--workdir", str(tmp_path / "w")])


def test_sampling_writes_what_people_can_look_at(run, file, capsys):
    assert cli.main(["sample", str(run), "--experiment", str(file), "--n", "2", "--given", "label=b"]) == 0
    names = ["label_000.txt", "label_001.txt", "point_000.png", "point_001.png"]
    assert sorted(path.name for path in (run / "samples").iterdir()) == names
    assert (run / "samples" / "label_001.txt").read_text() == "b"
    assert "2 examples of point, label in" in capsys.readouterr().out


def test_sampling_is_repeatable_and_follows_the_seed(run, file, tmp_path):
    files = []
    for i, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(i)
        args = ["sample", run, "--experiment", file, "--targets", "point", "--n", 3, "--seed", seed, "--out", out]
        assert cli.main([str(arg) for arg in args]) == 0
        files.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert len(files[0]) == 3 and files[0] == files[1] != files[2]


def test_sampling_needs_no_experiment_file_if_all_is_of_the_package(run, file, tmp_path):
    config = run / "config.json"
    experiment = from_json(config.read_text(), load_experiment(file))
    config.write_text(to_json(dataclasses.replace(experiment, data=Digits(), evaluators=())))
    assert cli.main(["sample", str(run), "--n", "1", "--targets", "point,label"]) == 0
    assert len(list((run / "samples").iterdir())) == 2


def test_sampling_from_a_prior_fitted_to_the_codes(run, file, tmp_path):
    args = ["sample", run, "--experiment", file, "--targets", "point", "--n", 3]
    files = []
    for i, prior in enumerate(((), ("--prior", "mixture"))):
        assert cli.main([str(arg) for arg in (*args, *prior, "--out", tmp_path / str(i))]) == 0
        files.append({path.name: path.read_bytes() for path in (tmp_path / str(i)).iterdir()})
    assert files[0].keys() == files[1].keys() and files[0] != files[1]


@pytest.mark.parametrize(
    "args, text",
    [
        (["--given", "label"], "--given must be NAME=VALUE, not 'label'"),
        (["--given", "sound=x.wav"], "'sound' is not a modality of this run, which has point, label"),
        (["--targets", "point,sound"], "'sound' is not a modality of this run"),
        (["--given", "label=z"], "Label: 'z' is none of the names"),
        (["--given", "point=[1, 2, 3]"], "Vector"),
        (["--given", "point=north"], "Vector"),
        (["--given", "point=none.npy"], "none.npy"),
        (["--given", "point={pickle}"], "holds no array of numbers: Object arrays cannot be loaded"),
        (["--n", "0"], "--n must be at least 1, not 0"),
        (["--weak", "2"], "--weak: a VAE cannot be guided away from an earlier step, a Flow can"),
        (["--model.latent", "5"], "--model.latent 5 asks for a model with other parameters than those"),
        (["--model.laten", "5"], "there is no field 'model.laten' that can be set; did you mean model.latent"),
    ],
)
def test_mistakes_in_sampling(args, text, trained, file, mistake, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([object()]), allow_pickle=True)
    args = [arg.format(pickle=tmp_path / "objects.npy") for arg in args]
    assert text in mistake("sample", trained, "--experiment", file, "--out", tmp_path / "out", *args)
    assert not (tmp_path / "out").exists()


def test_sampling_overwrites_nothing(run, file, mistake, tmp_path):
    (tmp_path / "label_000.txt").write_text("mine")
    text = mistake("sample", run, "--experiment", file, "--n", "1", "--out", tmp_path)
    assert text.endswith("label_000.txt exists already; choose another --out")
    assert (tmp_path / "label_000.txt").read_text() == "mine"
    assert "toys.py is a file" in mistake("sample", run, "--experiment", file, "--n", "1", "--out", file)


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_directories_that_are_no_runs(command, run, file, mistake, tmp_path):
    assert "nowhere is not a run directory: it has no config.json" in mistake(command, tmp_path / "nowhere")
    text = mistake(command, run)
    assert "uses Toys of toys.py, which only its experiment file can bring back" in text
    (tmp_path / "new").mkdir()
    shutil.copy(run / "config.json", tmp_path / "new")
    assert "new has no checkpoint yet" in mistake(command, tmp_path / "new", "--experiment", file)
    (run / "config.json").write_text('{"class": "os.system", "command": "touch owned"}')
    assert "config.json: this run uses system of os" in mistake(command, run)
    (run / "config.json").write_text("{")
    assert "config.json: the configuration is not readable JSON" in mistake(command, run)


def test_damaged_checkpoints(run, file, mistake, caplog):
    whole, _ = load_run(run, file)[1], load_run(run, file)[0]
    assert whole.step == 4

    def flip(step):
        (path,) = [p for p in (run / "checkpoints" / step / "state" / "d").iterdir()]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 8
        path.write_bytes(content)

    flip("4")
    assert load_run(run, file)[1].step == 2 and "4 is damaged" in caplog.text
    assert cli.main(["sample", str(run), "--experiment", str(file), "--n", "1"]) == 0
    for path in (run / "checkpoints" / "2" / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    assert "no checkpoint in" in mistake("sample", run, "--experiment", file, "--out", run / "more")


def test_a_run_in_python(run, file):
    experiment, state = load_run(run, file)
    assert state.opt is None and int(state.step) == 4 and experiment.model.latent == 3
    made = experiment.model.sample(state.variables, jax.random.key(0), 2)
    assert made["point"].shape == (2, 2) and made["label"].shape == (2,)


def test_comparing(run, capsys, mistake, tmp_path):
    page = tmp_path / "page.md"
    assert cli.main(["compare", str(run), str(run), "--only", "latent", "--out", str(page)]) == 0
    assert "| latent | 3 | 3 |" in capsys.readouterr().out and "| latent | 3 | 3 |" in page.read_text()
    assert "no evaluation.json there" in mistake("compare", tmp_path)
    assert "must end with one of .html, .md, .csv" in mistake("compare", run, "--out", tmp_path / "page.txt")


def test_evaluating(run, file, capsys, mistake):
    (run / "evaluation.json").unlink()
    assert cli.main(["evaluate", str(run), "--experiment", str(file)]) == 0
    assert capsys.readouterr().out == "latent    3\nexamples  32\n"
    record = json.loads((run / "evaluation.json").read_text())
    assert record["step"] == 4 and record["values"] == {"latent": 3, "examples": 32}
    assert record["protocol"]["judges"] == [] and record["protocol"]["versions"]["jax"] == jax.__version__
    assert len(record["protocol"]["evaluators"]) == 1
    file = run / "without.py"
    file.write_text(EXPERIMENT)
    config = (run / "config.json").read_text().replace("toys.py", "without.py")
    tree = json.loads(config) | {"evaluators": []}
    (run / "config.json").write_text(json.dumps(tree))
    assert "has no evaluators" in mistake("evaluate", run, "--experiment", file)


def test_describing_data(file, capsys, mistake):
    assert cli.main(["data", str(file)]) == 0
    out = capsys.readouterr().out
    assert "train: 32 examples" in out and "point: float64 [2]" in out and "label: int 0" in out
    assert "there is no experiment file mnist" in mistake("data", "mnist")


def test_unknown_commands_and_flags_show_the_usage(capsys, trained):
    for args in ([], ["fly"], ["sample", str(trained), "--steps", "3"], ["sample"], ["sample", "x", "--n", "many"]):
        with pytest.raises(SystemExit) as exit:
            cli.main(args)
        assert exit.value.code == 2 and "usage: mmgen" in capsys.readouterr().err


def test_help_does_not_wait_for_jax():
    code = "import sys; sys.argv = ['mmgen', '--help']; import mmgen_jax.__main__ as m\n"
    code += "try: m.main()\nexcept SystemExit: print('loaded:', 'jax' in sys.modules, 'flax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: mmgen" in done.stdout and "python -m mmgen_jax" in done.stdout
    assert "loaded: False False" in done.stdout


def test_every_name_of_the_package_is_there():
    for name in mmgen_jax.__all__:
        assert getattr(mmgen_jax, name) is not None
    assert mmgen_jax.VAE is mmgen_jax.vae.VAE
    with pytest.raises(AttributeError, match="Vea"):
        mmgen_jax.Vea  # noqa: B018


@pytest.mark.slow
def test_sigterm_saves_and_says_so(file, tmp_path):
    command = [sys.executable, "-m", "mmgen_jax", "train", str(file), "--workdir", str(tmp_path / "run")]
    command += ["--steps", "1000000", "--log-every", "10"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr:
            if line.startswith("step "):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 143 and "which is saved" in rest and "Traceback" not in rest
    state = load_run(tmp_path / "run", file)[1]
    assert f"stopped at step {int(state.step)}" in rest
