"""From a label map to a road scene by SPADE: norms that the map modulates place by place (Park et al. 2019).

COMMAND   mmgen train experiments/streets_spade.py --workdir runs/spade && mmgen report runs/spade
EXPECTED  Frechet distance in random features 0.0101 (real examples: 0.0018),
          one run of 9 minutes on one busy CPU core; `streets_pix2pix.py` says what is alike for both

`mm.gan.presets.spade`, a quarter as wide; many scenes of one map, by noise.
"""

import dataclasses

from streets_pix2pix import make, small

import mmgen_jax as mm

published, adam = mm.gan.presets.spade(), mm.Optimizer(b1=0.0, b2=0.9)
narrow = dataclasses.replace(published, noise=32, networks=mm.gan.SPADE(hidden=32))
rates = (dataclasses.replace(adam, learning_rate=rate) for rate in (1e-4, 4e-4))
experiment = make(narrow, 400, *rates)
few = {"networks": mm.gan.SPADE(growth=1, hidden=2), "critics": mm.gan.Patches(layers=1)}
tiny = dataclasses.replace(experiment.model, modalities=small, noise=2, **few)  # for tests
