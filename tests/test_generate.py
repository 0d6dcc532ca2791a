"""What `mmgen sample` makes of its options: what is given, and how the model of a run samples."""

import dataclasses

import jax
import numpy as np
import pytest

import mmgen_jax as mm
import mmgen_jax.__main__ as cli
from mmgen_jax import generate
from mmgen_jax.config import to_json
from mmgen_jax.modalities import Image, Label, Text, Vector
from mmgen_jax.run import load_run
from mmgen_jax.train.loop import fit

MODALITIES = {"image": Image(4, 4, 1), "text": Text(5), "point": Vector(2), "label": Label(3, names=("a", "b", "c"))}


def test_what_is_given_may_be_a_path_a_number_or_a_list(tmp_path):
    picture = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    np.save(tmp_path / "x.npy", picture)
    (tmp_path / "x.png").write_bytes(MODALITIES["image"].render(picture / np.float32(255)).data)
    for path in ("x.npy", "x.png"):
        given = generate.encode(MODALITIES, "image", str(tmp_path / path))
        np.testing.assert_allclose(given, picture / 255, atol=1e-6)
    np.testing.assert_array_equal(generate.encode(MODALITIES, "point", "[1, -2.5]"), np.array([1, -2.5], np.float32))
    assert generate.encode(MODALITIES, "label", "c") == generate.encode(MODALITIES, "label", "2") == 2
    assert generate.encode(MODALITIES, "text", "ba").shape == (5,)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("text", "much too long", "Text: 'much too long' has 13 tokens"),
        ("image", "none.png", "none.png"),
        ("image", "none.npy", "none.npy"),
        ("image", __file__, "test_generate.py"),
        ("image", "[1, 2]", r"\[1, 2\]"),
        ("sound", "x.wav", "'sound' is not a modality of this run, which has image, text, point, label"),
    ],
)
def test_what_cannot_be_given(name, text, message):
    with pytest.raises((ValueError, OSError), match=message) as error:
        generate.encode(MODALITIES, name, text)
    assert cli._is_users(error.value) and "\n" not in str(error.value)


@dataclasses.dataclass(frozen=True)
class Points:
    """Points about (1, 1)."""

    def source(self, split):
        return [{"point": x} for x in np.random.default_rng(0).normal(1, 0.1, (16, 2))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A flow of points after two steps, with a checkpoint of each."""
    flow = mm.Flow(modalities={"point": Vector(2)}, width=8, joint=0, depth=1, heads=1, steps=3)
    experiment = mm.Experiment(model=flow, data=Points(), steps=2, batch_size=8, save_every=1)
    workdir = tmp_path_factory.mktemp("runs") / "points"
    fit(experiment, workdir)
    # Sampling needs no data, and so none whose class only this file has.
    (workdir / "config.json").write_text(to_json(dataclasses.replace(experiment, data=mm.data.Digits())))
    return workdir


def test_an_earlier_step_to_be_guided_away_from(run, tmp_path, monkeypatch, capsys):
    experiment, state = load_run(run)
    assert (state.step, load_run(run, step=1)[1].step) == (2, 1)
    made = []
    monkeypatch.setattr(generate, "_write", lambda out, modalities, values: made.append(values["point"]))
    for more in ([], ["--model.guidance.scale", "3", "--weak", "1"], ["--model.steps", "5"]):
        assert cli.main(["sample", str(run), "--n", "2", *more]) == 0
    flow, weak = experiment.model, load_run(run, step=1)[1].variables
    strong = dataclasses.replace(flow, guidance=mm.diffusion.Guidance(scale=3.0))
    longer = dataclasses.replace(flow, steps=5)
    for model, options, drawn in zip((flow, strong, longer), ({}, {"weak": weak}, {}), made, strict=True):
        wanted = model.sample(state.variables, jax.random.key(0), 2, **options)["point"]
        np.testing.assert_allclose(drawn, wanted, rtol=1e-5, atol=1e-6)
    assert not np.allclose(made[0], made[1])
    assert cli.main(["sample", str(run), "--weak", "1"]) == 2
    assert "--weak changes nothing at a guidance scale of 1" in capsys.readouterr().err


def test_the_command_line_offers_every_prior_there_is():
    assert tuple(generate.PRIORS) == cli.PRIORS
