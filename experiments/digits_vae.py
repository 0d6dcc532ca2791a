"""One model of a digit as picture, clip, sound, sentence and label: the main job.

COMMAND   mmgen train experiments/digits_vae.py --workdir runs/digits && mmgen report runs/digits
EXPECTED  2,500 steps in about 5 minutes on two quiet CPU cores, data, compilation, evaluation and report included;
          label given image 0.95, text given image 0.93, image given label 1.00, clip given image 0.91,
          all five agree in 0.22 of samples out of nothing, in 0.79 with a prior fitted to the codes

Mixture of products (MoPoE), with the single modalities and all of them together as the subsets: each modality alone
must say enough for all others, which is what "given one, make the rest" asks for. A clip is the picture of the shared
code, moved; where it starts is known to nobody else and has a small private code, which cannot change the picture.
"""

import mmgen_jax as mm
from mmgen_jax.data.builders.facts import DIGITS, VOCABULARY
from mmgen_jax.nn.motion import MovingPicture

START = 4  # numbers of that private code; with 2 it cannot say enough, and clips blur
clip = (8, 32, 32, 1)
modalities = {
    "image": mm.Image(28, 28, 1, fold=2, likelihood=mm.Laplace(0.2)),
    "video": mm.Video(
        *clip,
        fps=8,
        fold=2,
        features=16,
        likelihood=mm.Normal(0.25),
        decoder=MovingPicture(clip, motion=START, fold=2, reach=0.3),
    ),
    "audio": mm.Audio(8000, rate=8000, mels=40, fold=2, likelihood=mm.Normal(0.6)),
    "text": mm.Text(20, features=48, vocabulary=mm.Wordlist(VOCABULARY)),
    "label": mm.Label(10, names=DIGITS),
}
subsets = (*((name,) for name in modalities), tuple(modalities))

experiment = mm.Experiment(
    model=mm.VAE(
        modalities=modalities,
        latent=24,
        private={"video": START},
        weights={"label": 30.0, "text": 5.0, "video": 0.3, "audio": 0.3},
        objective=mm.vae.MoPoE(
            beta=mm.vae.Ramp(0.0, 1.0, 100), beta_private=2.0, fusion=mm.vae.MixtureOfProducts(subsets=subsets)
        ),
    ),
    data=mm.data.Digits(),
    steps=2500,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=3e-3, schedule="cosine", warmup=100),
    steps_per_call=20,
    log_every=20,
    save_every=500,
    evaluators=(
        mm.evals.Coherence(subsets="single", priors=(mm.vae.GaussianMixturePrior(),)),
        mm.evals.Facts(),
        mm.evals.Reconstruction(),
        mm.evals.Distances(),
        *(mm.evals.Distances(("frechet",), given=(name,)) for name in ("audio", "text", "label")),
    ),
)
