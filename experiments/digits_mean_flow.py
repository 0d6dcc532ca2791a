"""A digit as picture, sentence and label, any of them from any others, in a single step of the network.

COMMAND   mmgen train experiments/digits_mean_flow.py --workdir runs/digits_mean_flow
EXPECTED  not measured yet

The flow of `digits_flow.py` by MeanFlow. That learns velocities, which have noise in them, so tokens must not hold more
values than fit through the width with it: the clip and the sound are left out.
"""

import dataclasses

from digits_flow import experiment as flow

import mmgen_jax as mm

model = dataclasses.replace(
    flow.model,
    modalities={name: flow.model.modalities[name] for name in ("image", "text", "label")},
    path=mm.diffusion.RectifiedFlow(),
    times=mm.diffusion.Times(independent=0.2, density=mm.diffusion.UniformTimes()),  # the one step begins at t = 1
    objective=mm.diffusion.MeanFlow(share=0.5),
    guidance=mm.diffusion.Guidance(),
    sampler=mm.diffusion.Euler(),
    steps=1,
)
tiny = dataclasses.replace(model, width=32, depth=1, heads=2)  # for tests

evaluators = (mm.evals.Coherence(), mm.evals.Facts(), mm.evals.Distances(("frechet",)))
experiment = dataclasses.replace(flow, model=model, evaluators=evaluators)
