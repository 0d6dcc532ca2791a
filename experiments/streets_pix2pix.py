"""From a label map to a road scene, in pairs, by pix2pix: a game of patches and the distance from the answer.

COMMAND   mmgen train experiments/streets_pix2pix.py --workdir runs/pix2pix && mmgen report runs/pix2pix
          mmgen train experiments/streets_spade.py --workdir runs/spade          SPADE, on the same streets
          mmgen train experiments/nights_cyclegan.py --workdir runs/cyclegan     CycleGAN, without pairs
EXPECTED  Frechet distance in random features 0.0060 (real examples: 0.0018),
          one run of 6 minutes on one busy CPU core

Reads tfds `cityscapes` where it is prepared, middle squares of which become 64 x 64; otherwise made-up streets
(`mm.data.Streets`). `mm.gan.presets.pix2pix`, a quarter as wide, is for 256 x 256 (Isola et al. 2017).
"""

import dataclasses

import mmgen_jax as mm

cityscapes = mm.data.Tfds("cityscapes", {"photo": "image_left", "map": "segmentation_label"}, test="validation")
real = mm.data.prepared(cityscapes)
photo = mm.Image(64, 64, features=16)
streets = {"map": mm.LabelMap(64, 64, 34 if real else 5), "photo": photo}
squares = mm.data.Square(mm.data.Square(cityscapes, "photo"), "map")


def make(preset: mm.gan.Translation, steps: int, generator: mm.Optimizer, critic: mm.Optimizer) -> mm.Experiment:
    """The experiment of one preset: data and measurement are the same for all."""
    return mm.Experiment(
        model=dataclasses.replace(preset, modalities=streets),
        data=squares if real else mm.data.Streets(64, ("map", "photo")),
        steps=steps,
        batch_size=8,
        optimizer=mm.Players(generator=generator, critic=critic, ema=0.995),
        steps_per_call=10,
        save_every=1_000,
        evaluators=(mm.evals.Distances(("frechet",), given=("map",), extractor=mm.evals.RandomFeatures()),),
    )


adam = mm.Optimizer(learning_rate=2e-4, b1=0.5, b2=0.999)
experiment = make(mm.gan.presets.pix2pix(), 4_000, adam, adam)
small = {"map": mm.LabelMap(8, 8, 3), "photo": mm.Image(8, 8, features=2)}
tiny = dataclasses.replace(experiment.model, modalities=small, critics=mm.gan.Patches(layers=1))  # for tests
