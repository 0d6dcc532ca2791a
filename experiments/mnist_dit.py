"""Handwritten digits and their class by a transformer of the size DiT-S (Peebles & Xie 2022, arXiv:2212.09748).

COMMAND   mmgen train experiments/mnist_dit.py --workdir runs/mnist_dit && mmgen report runs/mnist_dit
          mmgen sample runs/mnist_dit --given label=7
          for a CPU: add --model.width 128 --model.depth 4 --model.heads 4 --steps 2000
EXPECTED  not measured yet; at full size, 33 M parameters, it wants an accelerator

Pixels in patches of 2 x 2, the class as one more token: the same network makes a picture of a class, tells the class
of a picture, and makes both. What is given guides what is made. The class weighs less in the loss, since its cross
entropy is far larger than an error of pixels.

Reads tfds `mnist` where it is prepared, otherwise the offline digits.
"""

import dataclasses

import mmgen_jax as mm
from mmgen_jax.diffusion.dit import PRESETS

mnist = mm.data.Tfds("mnist", {"image": "image", "label": "label"})

model = mm.Flow(
    modalities={"image": mm.Image(28, 28, 1, patch=2), "label": mm.Label(10)},
    joint=0,
    **PRESETS["S"],
    guidance=mm.diffusion.Guidance(scale=1.5, interval=(0.1, 0.9)),
    weights={"label": 0.1},
)
tiny = dataclasses.replace(model, width=32, depth=1, heads=2)  # for tests

experiment = mm.Experiment(
    model=model,
    data=mnist if mm.data.prepared(mnist) else mm.data.Digits(),
    steps=20_000,
    batch_size=128,
    optimizer=mm.Optimizer(learning_rate=3e-4, warmup=500, ema=0.999, clip=1.0),
    save_every=2_000,
    evaluators=(mm.evals.Coherence(), mm.evals.Distances()),
)
