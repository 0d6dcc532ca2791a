"""R3GAN on digits: relativistic pairing with R1 and R2, and networks without norms (Huang et al. 2025).

COMMAND   mmgen train experiments/image_gan_r3gan.py --workdir runs/r3gan
EXPECTED  no whole run has been measured; `image_gan.py` says what is alike for all
"""

from image_gan import make, tiny_of

import mmgen_jax as mm

adam = mm.Optimizer(learning_rate=2e-4, b1=0.0, b2=0.99, schedule="cosine", final=5e-5)

experiment = make(mm.gan.presets.r3gan(), adam, networks=mm.gan.R3GAN(blocks=1, growth=1))
tiny = tiny_of(experiment.model)
