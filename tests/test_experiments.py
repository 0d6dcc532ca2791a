"""The files of experiments/ train: two steps of their own models, on a few made-up examples."""

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import mmgen_jax as mm
from mmgen_jax.config import from_json, to_json

FOLDER = Path(__file__).parents[1] / "experiments"
TABLE = FOLDER / "polydigits_table.py"
FILES = sorted(set(FOLDER.glob("*.py")) - {TABLE})


def raw(modality, rng):
    """One raw example of a modality, as a data set would hand it over."""
    if isinstance(modality, mm.Text):
        return "a thin seven."
    if isinstance(modality, mm.LabelMap):
        return rng.integers(modality.classes, size=modality.shape)
    if isinstance(modality, mm.Label):
        return int(rng.integers(modality.classes))
    if isinstance(modality, mm.Audio):
        return rng.integers(-999, 999, modality.samples).astype(np.int16)
    return rng.random(modality.shape) > 0.5


def smaller(path, model):
    """A file's own `tiny` model; two views of PolyDigits stand for all five, which are alike: less to compile."""
    if "\ntiny = " in path.read_text():
        return runpy.run_path(str(path))["tiny"]
    if "m4" not in model.modalities:
        return model
    first = {name: model.modalities[name] for name in ("m0", "m1")}
    private = {name: size for name, size in getattr(model, "private", {}).items() if name in first}
    return dataclasses.replace(model, modalities=first, **({"private": private} if private else {}))


# Files on one base differ in their objective or preset alone, each of which has tests of its own: one of a kind trains.
# What others build on trains with them.
ALIKE = {
    "polydigits_": {"mvtcae", "mmvae_plus", "mhvae"},
    "image_gan_": set(),
    "streets_": {"pix2pix"},
    "digits_": {"vae", "flow", "tokens"},  # the game takes minutes to compile: tests/test_latent.py has a small one
    "coco_": {"tokens"},
    "imagenet_": set(),
    "stacked_digits_": set(),
}
TRAINED = [f for f in FILES if all(f.stem.removeprefix(base) in some | {f.stem} for base, some in ALIKE.items())]


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINED, ids=[f.stem for f in TRAINED])
def test_two_steps_from_the_file_to_a_sample(path, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    experiment = mm.load_experiment(path)
    model, rng = smaller(path, experiment.model), np.random.default_rng(0)
    columns = {name: [raw(m, rng) for _ in range(8)] for name, m in model.modalities.items()}
    few = dict(data=mm.data.Arrays(columns), steps=2, batch_size=8, steps_per_call=2)
    runs = {}
    for name in experiment.first:  # what it builds on trains as briefly, and once
        if model.first[name] not in runs:
            runs[model.first[name]] = str(tmp_path / name)
            mm.fit(mm.Experiment(model=model.first[name], **few), tmp_path / name)
    first = {name: runs[model.first[name]] for name in experiment.first}
    optimizer = dataclasses.replace(experiment.optimizer, warmup=0)
    few |= {"workers": None if experiment.workers is None else 0}  # streamed, by no processes that take long to start
    tiny = dataclasses.replace(experiment, model=model, optimizer=optimizer, first=first, evaluators=(), **few)
    state = mm.fit(tiny, tmp_path / "run")
    assert int(state.step) == 2
    made = model.sample(state.variables, mm.rng.step_key(0, "sample", 0), 1)
    assert np.isfinite(next(iter(made.values()))).all()


@pytest.mark.parametrize("path", FILES, ids=[f.stem for f in FILES])
def test_files_are_short_say_how_to_run_them_and_can_be_saved(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 80 and "COMMAND" in text and "EXPECTED" in text
    experiment = mm.load_experiment(path)
    assert from_json(to_json(experiment)) == experiment


def test_every_objective_of_polydigits_has_a_file_of_its_own(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    shared = runpy.run_path(str(FOLDER / "polydigits.py"))
    names = {path.stem.removeprefix("polydigits_") for path in FOLDER.glob("polydigits_*.py")} - {"table"}
    assert set(shared["models"](10)) == names
    for name in names:
        assert mm.load_experiment(FOLDER / f"polydigits_{name}.py") == shared["make"](name)


def test_the_table_of_polydigits(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    script = runpy.run_path(str(TABLE))
    sets = mm.evals.coherence.given_sets(tuple("abcde"), "all")
    values = {f"coherence/{'+'.join(s)}->{t}": len(s) / 10 for s in sets for t in "abcde" if t not in s}
    values |= {"coherence/a->b": 0.9, "coherence/given_1": 0.7, "coherence/joint": 0.25, "judge/a": 0.99}
    values |= {"frechet/a": 1.0, "frechet/b": 2.0, "frechet/a/floor": 0.1, "nll": 8123.4, "nll/error": 12.3}
    rows = {"some": values | {"coherence/joint/GaussianMixturePrior": 0.75, "speed": 12.34}}
    rows["other"] = {name: x for name, x in values.items() if "nll" not in name} | {"speed": 5.0}
    lines = script["table"](rows).splitlines()
    # Of five sets of one view the first has a mean of (0.9 + 3 x 0.1) / 4 = 0.3, the others 0.1.
    assert script["given"](values, 1) == pytest.approx((0.14, 0.2 / 5))
    assert lines[2] == (
        "| some | 0.14 ± 0.04 | 0.20 ± 0.00 | 0.30 ± 0.00 | 0.40 ± 0.00 | 0.25 | 0.75 | 1.5 | 8123 ± 12 | 12.3 |"
    )
    assert lines[3].endswith("| 0.25 | - | 1.5 | - | 5.0 |")
    assert {line.count("|") for line in lines} == {11}
    text = script["page"](rows, 1000, 90.0)
    assert "\n".join(lines) in text and "after 1,000 steps" in text and "0.990 to 0.990" in text
