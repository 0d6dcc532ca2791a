"""SNGAN on digits: residual networks, the hinge loss, and spectral norm of the critic (Miyato et al. 2018).

COMMAND   mmgen train experiments/image_gan_sngan.py --workdir runs/sngan
EXPECTED  Frechet distance 17.05 (real examples: 0.28),
          one run of 12 minutes on one busy CPU core; `image_gan.py` says what is alike for all
"""

from image_gan import make, tiny_of

import mmgen_jax as mm

adam = mm.Optimizer(learning_rate=2e-4, b1=0.0, b2=0.9, schedule="linear")

experiment = make(mm.gan.presets.sngan(), adam, steps=2_000)
tiny = tiny_of(experiment.model)
