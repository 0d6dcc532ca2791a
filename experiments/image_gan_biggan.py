"""BigGAN on digits: noise for every block, attention, and spectral norm of both players (Brock et al. 2019).

COMMAND   mmgen train experiments/image_gan_biggan.py --workdir runs/biggan
EXPECTED  Frechet distance 20.29 (real examples: 0.28),
          one run of 7 minutes on one busy CPU core; `image_gan.py` says what is alike for all
"""

from image_gan import make, tiny_of

import mmgen_jax as mm

experiment = make(mm.gan.presets.biggan(32), mm.Optimizer(learning_rate=2e-4, b1=0.0, b2=0.999), steps=800, features=48)
tiny = tiny_of(experiment.model)
