"""A thousand modes by the plain DCGAN: the original, non-saturating loss and no penalty (Radford et al. 2016).

COMMAND   mmgen train experiments/stacked_digits_dcgan.py --workdir runs/stacked_dcgan
EXPECTED  1 of the 1,000 modes: all pictures are alike; see `stacked_digits.py`

Everything else is as in `stacked_digits.py`, but for the optimiser, which is DCGAN's own.
"""

import dataclasses

from stacked_digits import make, picture

import mmgen_jax as mm

experiment = make(mm.gan.NonSaturating(), (), mm.Optimizer(learning_rate=2e-4, b1=0.5, b2=0.999))
small = {"image": dataclasses.replace(picture, features=4)}
tiny = dataclasses.replace(experiment.model, modalities=small)  # for tests
