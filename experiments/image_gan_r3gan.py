"""R3GAN on digits: relativistic pairing with R1 and R2, and networks without norms (Huang et al. 2025).

COMMAND   mmgen train experiments/image_gan_r3gan.py --workdir runs/r3gan
EXPECTED  Frechet distance 16.82 (real examples: 0.28),
          one run of 11 minutes on one busy CPU core; `image_gan.py` says what is alike for all
"""

from image_gan import make, tiny_of

import mmgen_jax as mm

adam = mm.Optimizer(learning_rate=1e-3, b1=0.0, b2=0.99, schedule="cosine")
penalties = (mm.gan.R1(gamma=1.0), mm.gan.R2(gamma=1.0))
networks = mm.gan.R3GAN(blocks=1, growth=1)

experiment = make(mm.gan.presets.r3gan(), adam, steps=4_000, networks=networks, penalties=penalties)
tiny = tiny_of(experiment.model)
