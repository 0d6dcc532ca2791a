"""A spoken digit and a clip of the same digit, moving: together, or each from the other.

COMMAND   mmgen train experiments/audio_video_flow.py --workdir runs/audio_video && mmgen report runs/audio_video
          mmgen sample runs/audio_video --targets audio,video
EXPECTED  not measured: minutes say nothing yet, it wants an accelerator

Both are cut into tokens that stand at their own seconds (`nn/rope.py`), in blocks with weights of their own at first
and then in blocks for both. A token of a clip is 128 values, one of sound 160: the network predicts data, because the
noise in so many hardly fits through a width of 192, and its errors count alike at all noise levels: the high ones, at
which a class is decided, as well. The class is not modelled; only judges see it.
"""

import dataclasses

import mmgen_jax as mm

modalities = {
    "video": mm.Video(8, 32, 32, 1, fps=8, tubelet=(2, 8, 8)),
    "audio": mm.Audio(8000, rate=8000, mels=40, patch=4),
}

model = mm.Flow(
    modalities=modalities,
    width=192,
    joint=2,
    depth=6,
    heads=6,
    path=mm.diffusion.RectifiedFlow(prediction="data"),
)
tiny = dataclasses.replace(model, width=32, joint=1, depth=1, heads=2)  # for tests

experiment = mm.Experiment(
    model=model,
    data=mm.data.Digits(),
    steps=5_000,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=2e-3, b2=0.99, schedule="cosine", warmup=200, ema=0.999, clip=1.0),
    save_every=500,
    evaluators=(mm.evals.Coherence(), mm.evals.Distances()),
    labels={"label": mm.Label(10)},
)
