"""The flow of `digits_flow.py` by MeanFlow: pictures, clips and sounds in a single step of the network.

COMMAND   mmgen train experiments/digits_codes.py --workdir runs/digits_codes
          mmgen train experiments/digits_mean_flow.py --workdir runs/digits_mean_flow
EXPECTED  not measured yet

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

experiment = dataclasses.replace(digits_flow.experiment, model=model)
