"""Experiments: validation, JSON that executes nothing, and the claim on a run directory."""

import dataclasses
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import pytest

import mmgen_jax
from mmgen_jax.config import Experiment, claim, from_json, load_experiment, to_json
from mmgen_jax.data import Digits
from mmgen_jax.evals import Clips, Codes
from mmgen_jax.modalities import Bernoulli, Image, Label, Laplace, Text, Vector
from mmgen_jax.nn.mlp import MLP
from mmgen_jax.train.mesh import Mesh
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.vae import MVTCAE, VAE, MixtureOfExperts, MoPoE


def an_experiment(**changes):
    model = VAE(modalities={"image": Image(8, 8, 1), "text": Text(5), "class": Label(3)}, latent=4)
    return Experiment(**{"model": model, "data": Digits(data_dir="somewhere"), "steps": 10, **changes})


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": 1.5}, "steps must be a whole number of at least 1, not 1.5"),
        ({"batch_size": True}, "batch_size must be a whole number of at least 1, not True"),
        ({"batch_size": "8"}, "batch_size must be a whole number of at least 1, not '8'"),
        ({"steps_per_call": 0}, "steps_per_call must be"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"workers": -1}, "workers must be a whole number of at least 0, not -1"),
        ({"log_every": 0}, "log_every must be"),
        ({"save_every": 0}, "save_every must be"),
        ({"eval_every": -5}, "eval_every must be a whole number of at least 0"),
        ({"keep": 0}, "keep must be"),
        ({"model": Image(8, 8)}, r"model must have a method step\(\)"),
        ({"data": None}, r"data must have a method source\(\), which None has not"),
        ({"evaluators": [len]}, "evaluators must be a tuple"),
        ({"evaluators": (3,)}, "evaluators must be a tuple"),
        ({"evaluators": (Codes(),)}, r"Codes needs a model with a method to_tokens\(\), which VAE has not"),
        ({"evaluators": (Clips(),)}, "Clips needs a modality of clips, but the model has"),
        ({"best": "fid"}, "best is 'fid', but there are no evaluators"),
        ({"labels": {"class": Label(3), "name": Text(5)}}, r"labels name \['class'\], which the model has"),
    ],
)
def test_an_experiment_says_what_is_wrong_with_it(changes, text):
    with pytest.raises(ValueError, match=text):
        an_experiment(**changes)


EXPERIMENTS = {
    "defaults": {},
    "execution": dict(mesh=Mesh(data=2, rules=(("kernel", "fsdp"),)), per_device=True, workers=2),
    "optimizer": dict(optimizer=Optimizer(schedule="cosine", warmup=3, clip=1.0, ema=0.99)),
    "likelihoods": dict(
        model=VAE(
            modalities={
                "image": Image(6, 7, 2, likelihood=Laplace(0.5)),
                "mask": Image(6, 7, 1, likelihood=Bernoulli(), patch=1),
                "vector": Vector(3),
                "label": Label(2, names=("ä", 'with "quotes"')),
            },
            private={"image": 2},
            weights={"vector": 0.1},
            objective=MoPoE(fusion=MixtureOfExperts()) if "fusion" in MoPoE.__dataclass_fields__ else MoPoE(),
            dtype="bfloat16",
        )
    ),
    "labels": dict(labels={"name": Label(2, names=("cat", "dog"))}),
    "own networks": dict(
        model=VAE(modalities={"vector": Vector(3, encoder=MLP(8, (4, 4), dtype=jnp.bfloat16))}, objective=MVTCAE())
    ),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_written_is_read_back(name):
    experiment = an_experiment(**EXPERIMENTS[name])
    text = to_json(experiment)
    assert from_json(text) == experiment
    assert to_json(from_json(text)) == text
    assert json.loads(text)["class"] == "mmgen_jax.config.Experiment"


def package_dataclasses():
    for module in pkgutil.walk_packages(mmgen_jax.__path__, "mmgen_jax."):
        if not module.name.endswith("__main__"):
            for cls in vars(importlib.import_module(module.name)).values():
                if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls.__module__ == module.name:
                    yield cls


def test_every_dataclass_of_the_package_that_needs_no_arguments_is_read_back():
    """Anything of the package may stand in an experiment: here, in place of a fusion."""
    tried = set()
    for cls in package_dataclasses():
        defaults = [(f.default, f.default_factory) for f in dataclasses.fields(cls) if f.init]
        if (dataclasses.MISSING, dataclasses.MISSING) not in defaults:
            assert from_json(to_json(_with(cls()))).model.objective.fusion == cls()
            tried.add(cls.__name__)
    assert {"MVTCAE", "Normal", "Optimizer", "Mesh", "Digits"} <= tried


def _with(fusion):
    return an_experiment(model=VAE(modalities={"vector": Vector(2)}, objective=MVTCAE(fusion=fusion)))


@pytest.mark.parametrize(
    "node, text",
    [
        ({"class": "os.system", "command": "touch owned"}, "uses system of os, which only its experiment file"),
        ({"class": "subprocess.Popen", "args": ["touch", "owned"]}, "uses Popen of subprocess"),
        ({"class": "builtins.eval"}, "uses eval of builtins"),
        ({"class": "system"}, "uses system of an unknown module"),
        ({"class": "mmgen_jaxx.evil.X"}, "uses X of mmgen_jaxx.evil"),
        ({"class": "mmgen_jax.config.os.system"}, "names mmgen_jax.config.os.system, which does not exist"),
        (
            {"class": "mmgen_jax.config.write_text", "path": "owned", "text": ""},
            "which is not a dataclass of mmgen_jax",
        ),
        ({"class": "mmgen_jax.config.load_experiment", "path": "x"}, "which is not a dataclass of mmgen_jax"),
        ({"class": "mmgen_jax.config.Path"}, "which is not a dataclass of mmgen_jax"),
        ({"class": "mmgen_jax.train.checkpoint.Checkpoints", "directory": "owned"}, "is not a dataclass of mmgen_jax"),
        (
            {"class": "mmgen_jax.config.Optimizer"},
            "which is not a dataclass of mmgen_jax",
        ),  # imported there, not defined
        ({"class": "mmgen_jax.no_such_module.X"}, "which does not exist in this version"),
        ({"class": "mmgen_jax..X"}, "mmgen_jax"),
        ({"class": ""}, "an unknown module"),
        ({"class": "dtype", "name": "os"}, "the dtype 'os', which does not exist"),
        ({"class": "dtype"}, "the dtype None"),
        ({"class": "mmgen_jax.train.mesh.Mesh", "dta": 3}, "Mesh has no field 'dta'; it has data, fsdp, model, rules"),
        ({"class": "mmgen_jax.train.mesh.Mesh", "data": "a"}, "Mesh cannot be built"),
        ({"class": "mmgen_jax.modalities.image.Image"}, "Image cannot be built: .*height"),
        ({"class": "mmgen_jax.train.mesh.Mesh", "data": 0}, "mesh.data is 0, but must be"),
    ],
)
def test_json_builds_nothing_but_the_package_s_dataclasses(node, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = json.loads(to_json(an_experiment()))
    for place in ("data", "mesh", "model"):
        with pytest.raises(ValueError, match=text):
            from_json(json.dumps({**tree, place: node}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ("[1, 2]", "holds a tuple, not an Experiment"),
        ("null", "holds a NoneType"),
        ('{"class": "mmgen_jax.train.mesh.Mesh"}', "holds a Mesh, not an Experiment"),
        ('{"class": "mmgen_jax.config.Experiment"}', "Experiment cannot be built: .*missing"),
    ],
)
def test_json_that_is_no_experiment(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text)


def test_a_mapping_that_json_could_not_tell_from_a_class():
    with pytest.raises(ValueError, match="cannot be written"):
        to_json(_with({"class": "os.system"}))
    with pytest.raises(ValueError, match="cannot be written"):
        to_json(_with({1: 2}))


OWN = """
import dataclasses
import flax.linen as nn
import mmgen_jax.data.builders.digits as digits
from mmgen_jax.config import Experiment
from mmgen_jax.modalities import Vector
from mmgen_jax.vae import VAE

class MyEncoder(nn.Module):
    width: int = 8
    act: object = nn.gelu

    @nn.compact
    def __call__(self, x):
        return self.act(nn.Dense(self.width)(x))

vae = VAE(modalities={"a": Vector(3), "x": Vector(3, encoder=MyEncoder(5))})
experiment = Experiment(model=vae, data=digits.Digits(data_dir="d"), steps=3)
"""


def test_a_class_of_the_user_s_own_comes_back_with_its_file_only(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    experiment = load_experiment(tmp_path / "mine.py")
    encoder = experiment.model.modalities["x"].encoder
    changed = dataclasses.replace(
        experiment, steps=7, model=VAE(modalities={"x": Vector(3, encoder=encoder.clone(width=9)), "a": Vector(3)})
    )
    text = to_json(changed)
    assert '"mine.py.MyEncoder"' in text and '"width": 9' in text
    with pytest.raises(ValueError, match="uses MyEncoder of mine.py, .* pass that file with --experiment"):
        from_json(text)
    again = from_json(text, load_experiment(tmp_path / "mine.py"))
    assert again.steps == 7 and again.model.modalities["x"].encoder.width == 9
    assert again.model.modalities["x"].encoder.act is nn.gelu
    assert to_json(again) == text


def test_a_user_s_class_is_not_taken_from_another_place_or_of_another_name(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "other.py").write_text(OWN.replace("MyEncoder", "Another"))
    text = to_json(load_experiment(tmp_path / "mine.py"))
    with pytest.raises(ValueError, match="uses MyEncoder of mine.py"):
        from_json(text, load_experiment(tmp_path / "other.py"))


def test_experiment_files(tmp_path):
    with pytest.raises(ValueError, match="there is no experiment file .*none.py"):
        load_experiment(tmp_path / "none.py")
    (tmp_path / "syntax.py").write_text("x = 1\nx = = 2\n")
    with pytest.raises(ValueError, match="syntax.py, line 2: invalid syntax"):
        load_experiment(tmp_path / "syntax.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="empty.py must define `experiment`, an .*; there it is None"):
        load_experiment(tmp_path / "empty.py")
    (tmp_path / "bug.py").write_text("undefined_name\n")
    with pytest.raises(NameError):  # a bug of the user's own program keeps its traceback
        load_experiment(tmp_path / "bug.py")


def test_an_experiment_file_can_import_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "neighbour_of_mine.py").write_text("steps = 77\n")
    (tmp_path / "mine.py").write_text(OWN + "import neighbour_of_mine\nexperiment = Experiment(\n"
        "    model=vae, data=experiment.data, steps=neighbour_of_mine.steps)\n")  # fmt: skip
    assert load_experiment(tmp_path / "mine.py").steps == 77


def test_claiming_a_new_directory(tmp_path):
    experiment = an_experiment()
    workdir = claim(tmp_path / "a" / "b", experiment)
    assert from_json((workdir / "config.json").read_text()) == experiment
    (start,) = [json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines()]
    assert start["versions"]["python"] == sys.version.split()[0] and start["devices"] == [8, "cpu"]
    assert {path.name for path in workdir.iterdir()} == {"config.json", "starts.jsonl"}


def test_claiming_again_continues_even_if_executed_differently(tmp_path):
    claim(tmp_path, an_experiment())
    changed = an_experiment(
        mesh=Mesh(model=2),
        per_device=True,
        steps_per_call=3,
        workers=1,
        log_every=1,
        eval_every=2,
        save_every=3,
        keep=4,
    )
    claim(tmp_path, changed)
    assert from_json((tmp_path / "config.json").read_text()) == changed
    assert len((tmp_path / "starts.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"seed": 4}, "holds another experiment: seed is 0 there and 4 here; choose another --workdir"),
        ({"optimizer": Optimizer(ema=0.9)}, "optimizer.ema is 0.0 there and 0.9 here"),
        ({"model": VAE(modalities={"x": Vector(2)})}, "model.modalities.image.class is 'mmgen.*' there and None here"),
    ],
)
def test_claiming_the_directory_of_another_experiment(tmp_path, changes, text):
    claim(tmp_path, an_experiment())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=text):
        claim(tmp_path, an_experiment(**changes))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_from_before_a_field_existed_goes_on_with_its_default(tmp_path):
    claim(tmp_path, an_experiment())
    older = json.loads((tmp_path / "config.json").read_text())
    del older["optimizer"]["final"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    with pytest.raises(ValueError, match="optimizer.final is 0.0 there and 0.001 here"):
        claim(tmp_path, an_experiment(optimizer=Optimizer(final=1e-3)))
    claim(tmp_path, an_experiment())


def test_many_differences_are_not_all_told(tmp_path):
    claim(tmp_path, an_experiment())
    with pytest.raises(ValueError, match=r"steps is 10 .*; batch_size is .*; seed is [^;]*, and 1 more; choose"):
        claim(tmp_path, an_experiment(steps=11, batch_size=1, seed=2, optimizer=Optimizer(ema=0.5)))


def test_processes_of_one_run_may_claim_at_the_same_moment(tmp_path, monkeypatch):
    listing = Path.iterdir

    def listed_just_after_another_process_claimed(path):
        monkeypatch.setattr(Path, "iterdir", listing)
        claim(path, an_experiment())
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", listed_just_after_another_process_claimed)
    assert claim(tmp_path, an_experiment()) == tmp_path
    assert len((tmp_path / "starts.jsonl").read_text().splitlines()) == 2


def test_directories_that_cannot_be_claimed(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file"):
        claim(tmp_path / "file", an_experiment())
    with pytest.raises(ValueError, match="below cannot be written to: Not a directory"):
        claim(tmp_path / "file" / "below", an_experiment())
    with pytest.raises(ValueError, match="is not empty and not a run directory"):
        claim(tmp_path, an_experiment())
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="/proc/no/run cannot be written to"):
        claim("/proc/no/run", an_experiment())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not readable JSON"):
        claim(tmp_path / "run", an_experiment())
