"""Every file of experiments/ trains: two steps of its own model, on a few made-up examples."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import mmgen_jax as mm
from mmgen_jax.config import from_json, to_json

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))


def raw(modality, rng):
    """One raw example of a modality, as a data set would hand it over."""
    if isinstance(modality, mm.Text):
        return "a thin seven."
    if isinstance(modality, mm.Label):
        return int(rng.integers(modality.classes))
    if isinstance(modality, mm.Audio):
        return rng.integers(-999, 999, modality.samples).astype(np.int16)
    return rng.random(modality.shape) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=[f.stem for f in FILES])
def test_two_steps_from_the_file_to_a_sample(path, tmp_path):
    experiment = mm.load_experiment(path)
    rng, modalities = np.random.default_rng(0), experiment.model.modalities
    columns = {name: [raw(m, rng) for _ in range(8)] for name, m in modalities.items()}
    tiny = dataclasses.replace(
        experiment,
        data=mm.data.Arrays(columns),
        steps=2,
        batch_size=8,
        optimizer=dataclasses.replace(experiment.optimizer, warmup=0),
        steps_per_call=2,
        evaluators=(),
    )
    state = mm.fit(tiny, tmp_path / "run")
    assert int(state.step) == 2
    first = next(iter(modalities))
    assert np.isfinite(experiment.model.sample(state.variables, mm.rng.step_key(0, "sample", 0), 1)[first]).all()


@pytest.mark.parametrize("path", FILES, ids=[f.stem for f in FILES])
def test_files_are_short_say_how_to_run_them_and_can_be_saved(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 80 and "COMMAND" in text and "EXPECTED" in text
    experiment = mm.load_experiment(path)
    assert from_json(to_json(experiment)) == experiment
