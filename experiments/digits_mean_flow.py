"""A digit as picture, sentence and label, any of them from any others, in a single step of the network.

COMMAND   mmgen train experiments/digits_mean_flow.py --workdir runs/digits_mean_flow
EXPECTED  not measured yet

MeanFlow learns velocities, so tokens must not hold more values than fit through the width with their noise: the clip
and the sound of the other digits' experiments are left out here.
"""

import dataclasses

import mmgen_jax as mm
from mmgen_jax.data.builders.facts import DIGITS, VOCABULARY

modalities = {
    "image": mm.Image(28, 28, 1, patch=4),
    "text": mm.Text(20, vocabulary=mm.Wordlist(VOCABULARY)),
    "label": mm.Label(10, names=DIGITS),
}
model = mm.Flow(
    modalities=modalities,
    width=128,
    joint=1,
    depth=4,
    heads=4,
    objective=mm.diffusion.MeanFlow(share=0.5),
    times=mm.diffusion.Times(density=mm.diffusion.UniformTimes()),  # the one step begins at t = 1
    sampler=mm.diffusion.Euler(),
    steps=1,
)
tiny = dataclasses.replace(model, width=32, depth=1, heads=2)  # for tests

experiment = mm.Experiment(
    model=model,
    data=mm.data.Digits(),
    steps=3000,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=4e-3, b2=0.99, clip=1.0, schedule="cosine", warmup=100, ema=0.99),
    steps_per_call=10,
    log_every=20,
    save_every=500,
    evaluators=(mm.evals.Coherence(), mm.evals.Facts(), mm.evals.Distances(("frechet",))),
)
