"""One model of a digit as picture, clip, sound, sentence and label: the main job.

COMMAND   mmgen train experiments/digits_vae.py --workdir runs/digits && mmgen report runs/digits
EXPECTED  1,000 steps of 0.11 s on two quiet CPU cores (the whole job took 11 minutes on busy ones); label given image
          0.94, text given image 0.89, image given label 0.84; clips are still a blur: the README has the table

Mixture of products (MoPoE), with the single modalities and all of them together as the subsets: each modality alone
must say enough for all others, which is what "given one, make the rest" asks for. The clip has a small private code,
dearly paid for, with room for where the digit starts and no more; 1,000 steps are too few to learn to use it.
"""

import mmgen_jax as mm
from mmgen_jax.data.builders.facts import DIGITS

modalities = {
    "image": mm.Image(28, 28, 1, fold=2, likelihood=mm.Normal(0.3)),
    "video": mm.Video(8, 32, 32, 1, fps=8, fold=2, features=16, likelihood=mm.Normal(0.3)),
    "audio": mm.Audio(8000, rate=8000, mels=40, fold=2, likelihood=mm.Normal(0.6)),
    "text": mm.Text(64, features=48, vocabulary=mm.Characters(" ,.abcdefghijklmnopqrstuvwxyz")),
    "label": mm.Label(10, names=DIGITS),
}
subsets = (*((name,) for name in modalities), tuple(modalities))

experiment = mm.Experiment(
    model=mm.VAE(
        modalities=modalities,
        latent=24,
        private={"video": 4},
        weights={"label": 30.0, "text": 3.0, "video": 0.15, "audio": 0.3},
        objective=mm.vae.MoPoE(beta_private=4.0, warmup=100, fusion=mm.vae.MixtureOfProducts(subsets=subsets)),
    ),
    data=mm.data.Digits(),
    steps=1000,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=3e-3, schedule="cosine", warmup=100),
    steps_per_call=20,
    log_every=20,
    save_every=500,
    evaluators=(
        mm.evals.Coherence(subsets="single"),
        mm.evals.Facts(),
        mm.evals.Reconstruction(),
        mm.evals.Frechet(),
    ),
)
