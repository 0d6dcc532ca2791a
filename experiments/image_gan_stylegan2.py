"""StyleGAN2 on digits: styles, noise at every place, lazy R1 and path lengths (Karras et al. 2020).

COMMAND   mmgen train experiments/image_gan_stylegan2.py --workdir runs/stylegan2
EXPECTED  Frechet distance 24.87 (real examples: 0.28),
          one run of 9 minutes on one busy CPU core; `image_gan.py` says what is alike for all
"""

import dataclasses

from image_gan import make, tiny_of

import mmgen_jax as mm
from mmgen_jax.train.players import lazily

preset = mm.gan.presets.stylegan2(32)
adam = mm.Optimizer(learning_rate=2.5e-3, b1=0.0, b2=0.99)
small = {"networks": mm.gan.StyleGAN2(growth=2, style=64, layers=2), "noise": 48, "width": 64}

experiment = make(preset, adam, steps=2_000, **small)
players = {"generator": lazily(adam, preset.path_length.every), "critic": lazily(adam, preset.penalties[0].every)}
experiment = dataclasses.replace(experiment, optimizer=dataclasses.replace(experiment.optimizer, **players))
tiny = dataclasses.replace(tiny_of(experiment.model), networks=mm.gan.StyleGAN2(growth=1, style=4, layers=1))
