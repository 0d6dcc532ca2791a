"""A digit's picture by the published games, each at a size for two CPU cores; this file is DCGAN's.

COMMAND   mmgen train experiments/image_gan.py --workdir runs/dcgan && mmgen report runs/dcgan
          mmgen train experiments/image_gan_sngan.py --workdir runs/sngan       or biggan, stylegan2, r3gan
          mmgen compare runs/dcgan runs/sngan --out image_gan.html
EXPECTED  Frechet distance 11.61 (real examples: 0.28),
          one run of 7 minutes on one busy CPU core

Each is its preset (`mm.gan.presets`) with narrower networks and a smaller picture, of which they take 2 x 2 pixels as
one cell. Beyond what was published DCGAN has R1, without which its critic won and all pictures became one (5,000 steps,
Frechet distance 46), and R3GAN a larger gamma and rate. The class is not modelled; only judges see it.
"""

import dataclasses
from typing import Any

import mmgen_jax as mm

picture = mm.Image(28, 28, 1, fold=2)


def make(preset: mm.GAN, adam: mm.Optimizer, steps: int, features: int = 32, **fields: Any) -> mm.Experiment:
    """The experiment of one preset: data and measurement are the same for all."""
    image = dataclasses.replace(picture, features=features)
    model = dataclasses.replace(preset, modalities={"image": image}, **fields)
    return mm.Experiment(
        model=model,
        data=mm.data.Digits(),
        steps=steps,
        batch_size=32 * model.critic_steps,
        optimizer=mm.Players(generator=adam, critic=adam, critic_steps=model.critic_steps, ema=0.995),
        steps_per_call=10,
        save_every=1_000,
        evaluators=(mm.evals.Distances(),),
        labels={"label": mm.Label(10)},
    )


def tiny_of(model: mm.GAN) -> mm.GAN:
    """The same with the narrowest networks, for tests."""
    small = dataclasses.replace(picture, height=8, width=8, features=4)
    return dataclasses.replace(model, modalities={"image": small}, noise=4, own=2, width=8, critic_steps=1)


adam = mm.Optimizer(learning_rate=2e-4, b1=0.5, b2=0.999)
experiment = make(mm.gan.presets.dcgan(), adam, steps=30_000, penalties=(mm.gan.R1(gamma=1.0),))
tiny = tiny_of(experiment.model)
