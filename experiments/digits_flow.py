"""One flow transformer of a digit as picture, clip, sound, sentence and label: any of them from any others.

COMMAND   mmgen train experiments/digits_flow.py --workdir runs/digits_flow && mmgen report runs/digits_flow
EXPECTED  not measured yet: this file trains and samples, but no whole run of it has been looked at
"""

import mmgen_jax as mm
from mmgen_jax.data.builders.facts import DIGITS, VOCABULARY

modalities = {
    "image": mm.Image(28, 28, 1, patch=7),
    "video": mm.Video(8, 32, 32, 1, fps=8, tubelet=(4, 8, 8)),
    "audio": mm.Audio(8000, rate=8000, mels=40, patch=8),
    "text": mm.Text(20, vocabulary=mm.Wordlist(VOCABULARY)),
    "label": mm.Label(10, names=DIGITS),
}

experiment = mm.Experiment(
    model=mm.Flow(modalities=modalities, width=128, joint=2, depth=4, heads=4, steps=20),
    data=mm.data.Digits(),
    steps=2500,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=1e-3, schedule="cosine", warmup=100, ema=0.99),
    steps_per_call=10,
    log_every=20,
    save_every=500,
    evaluators=(mm.evals.Coherence(subsets="single"), mm.evals.Facts(), mm.evals.Distances()),
)
