"""One game about a digit as picture, clip, sound, sentence and label: any of them from any others.

COMMAND   mmgen train experiments/digits_gan.py --workdir runs/digits_gan && mmgen report runs/digits_gan
EXPECTED  no whole run has been measured. After 1,640 steps (a run planned for 2,000) pictures look like digits, but
          parts did not yet belong together: label given image 0.10, text given image 0.13, which is chance.
          1.8 steps/s on two CPU cores that were shared with other work

The losses are R3GAN's, relativistic pairing with R1 and R2, for the critic of each modality and for the one that sees
all five; the slopes by finite differences, which need no second derivative. A clip is one picture, moved.
"""

import mmgen_jax as mm
from mmgen_jax.data.builders.facts import DIGITS, VOCABULARY
from mmgen_jax.nn.motion import MovingPicture

clip = (8, 32, 32, 1)
OWN = 8  # numbers that say what is of one modality only; those of a clip where it starts, never what it shows
modalities = {
    "image": mm.Image(28, 28, 1, fold=2),
    "video": mm.Video(*clip, fps=8, fold=2, features=16),
    "audio": mm.Audio(8000, rate=8000, mels=40, fold=2),
    "text": mm.Text(20, features=48, vocabulary=mm.Wordlist(VOCABULARY)),
    "label": mm.Label(10, names=DIGITS),
}
adam = mm.Optimizer(learning_rate=1e-3, b1=0.0, b2=0.99, schedule="cosine")

experiment = mm.Experiment(
    model=mm.GAN(
        modalities=modalities,
        noise=24,
        own=OWN,
        width=128,
        penalties=(mm.gan.R1(gamma=0.3, sigma=0.05, every=4), mm.gan.R2(gamma=0.3, sigma=0.05, every=4)),
        networks=mm.gan.DCGAN(),
        decoders={"video": MovingPicture(clip, motion=OWN, fold=2, reach=0.3)},
        weights={"joint": 2.0},
    ),
    data=mm.data.Digits(),
    steps=4000,
    batch_size=64,
    optimizer=mm.Players(generator=adam, critic=adam, warmup=100, ema=0.998),
    steps_per_call=20,
    log_every=20,
    save_every=500,
    evaluators=(mm.evals.Coherence(subsets="single"), mm.evals.Facts(), mm.evals.Distances()),
)
