"""From one set of pictures to another and back, without pairs, by CycleGAN (Zhu et al. 2017, arXiv:1703.10593).

COMMAND   mmgen train experiments/nights_cyclegan.py --workdir runs/cyclegan && mmgen report runs/cyclegan
EXPECTED  Frechet distance in random features 0.0576 (real examples: 0.0036),
          one run of 10 minutes on one busy CPU core

Reads tfds `cycle_gan/horse2zebra` where it is prepared (a horses, b zebras), made 64 x 64; otherwise made-up streets
by day, and others by night. `mm.gan.presets.cyclegan`, a quarter as wide and with a third of its blocks.
"""

import dataclasses

import mmgen_jax as mm

horses, zebras = (
    mm.data.Tfds("cycle_gan/horse2zebra", {part: "image"}, train=f"train{part.upper()}", test=f"test{part.upper()}")
    for part in "ab"
)
days, nights = (mm.data.Streets(64, (part,), seed=seed) for seed, part in enumerate(("photo", "night")))
real = mm.data.prepared(horses)
names = ("a", "b") if real else ("photo", "night")
first, second = (mm.data.Square(horses, "a"), mm.data.Square(zebras, "b")) if real else (days, nights)

model = dataclasses.replace(
    mm.gan.presets.cyclegan(),
    modalities={name: mm.Image(64, 64, features=16) for name in names},
    source=names[0],
    target=names[1],
    networks=mm.gan.ResNet(blocks=3),
)
small = {name: mm.Image(8, 8, features=2) for name in names}
few = {"networks": mm.gan.UNet(growth=1), "critics": mm.gan.Patches(layers=1)}
tiny = dataclasses.replace(model, modalities=small, **few)  # for tests
adam = mm.Optimizer(learning_rate=2e-4, b1=0.5, b2=0.999, schedule="linear")
frechet = (mm.evals.Distances(("frechet",), given=(name,), extractor=mm.evals.RandomFeatures()) for name in names)

experiment = mm.Experiment(
    model=model,
    data=mm.data.Paired(first, second, by=None),
    steps=600,
    batch_size=4,
    optimizer=mm.Players(generator=adam, critic=adam, ema=0.995),
    steps_per_call=10,
    save_every=1_000,
    evaluators=tuple(frechet),
)
