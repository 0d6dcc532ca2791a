"""One model of a digit as picture, clip, sound, sentence and label: the main job.

COMMAND   mmgen train experiments/digits_vae.py --workdir runs/digits && mmgen report runs/digits
EXPECTED  under five minutes on two CPU cores, data preparation and compilation included; the README has the table

Mixture of products (MoPoE), with the single modalities and all of them together as the subsets: each modality alone
must say enough for all others, which is what "given one, make the rest" asks for. The clip has a small private code,
dearly paid for, that has room for where the digit starts and no more.
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
