"""The flow of `digits_flow.py` by MeanFlow: pictures, clips and sounds in a single step of the network.

COMMAND   mmgen train experiments/digits_codes.py --workdir runs/digits_codes
          mmgen train experiments/digits_mean_flow.py --workdir runs/digits_mean_flow
EXPECTED  22 minutes on two cores that were shared with other work. In one step, share of the right class: picture given
          label or text 0.80, clip 0.78, sound 0.84; text given label 0.27. Frechet distances of what is made of
          nothing: pictures 5.2, clips 2.2, sounds 3.2; of a class: 3.8, 1.6, 1.2

Words are drawn in that one step as well, each by itself: sentences are not what this is for.
"""

import dataclasses

import digits_flow

import mmgen_jax as mm


def single_step(model: mm.Latent) -> mm.Latent:
    """The same network, for one step."""
    flow = dataclasses.replace(
        model.second,
        times=mm.diffusion.Times(independent=0.2, density=mm.diffusion.UniformTimes()),  # the one step begins at t = 1
        objective=mm.diffusion.MeanFlow(share=0.5),
        guidance=mm.diffusion.Guidance(),
        sampler=mm.diffusion.Euler(),
        steps=1,
    )
    return dataclasses.replace(model, second=flow)


model = single_step(digits_flow.model)
tiny = single_step(digits_flow.tiny)  # for tests

experiment = dataclasses.replace(digits_flow.experiment, model=model, steps=2000)
