"""Codes for a digit's picture, clip and sound, each by itself: what `digits_flow.py` stands on.

COMMAND   mmgen train experiments/digits_codes.py --workdir runs/digits_codes
EXPECTED  under 3 minutes on two quiet CPU cores

Three autoencoders in one model: there is no shared code. How noisy the codes are, which the likelihoods and weights
say, matters to what is built on them: with less noise pictures are sharper, but a flow learns by heart which code goes
with which.
"""

import mmgen_jax as mm
from mmgen_jax.nn.motion import MovingPicture

CLIP, PLACE = (8, 32, 32, 1), 8

modalities = {
    "image": mm.Image(28, 28, 1, fold=2, likelihood=mm.Laplace(0.1)),
    "video": mm.Video(
        *CLIP,
        fps=8,
        fold=2,
        features=24,
        likelihood=mm.Normal(0.15),
        decoder=MovingPicture(CLIP, motion=PLACE, fold=2, reach=0.3),
    ),
    "audio": mm.Audio(8000, rate=8000, mels=40, fold=2, likelihood=mm.Normal(0.6)),
}
model = mm.VAE(
    modalities=modalities,
    latent=0,  # nothing is shared
    private={"image": 24, "video": 24 + PLACE, "audio": 24},
    weights={"image": 0.6, "video": 0.05, "audio": 0.5},
    objective=mm.vae.ELBO(beta_private=1.0),
)

experiment = mm.Experiment(
    model=model,
    data=mm.data.Digits(),
    steps=2500,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=3e-3, schedule="cosine", warmup=100),
    steps_per_call=20,
    log_every=20,
    save_every=1000,
    evaluators=(mm.evals.Reconstruction(),),
)
