"""An autoencoder of ImageNet at 256 x 256 whose code is a grid of 32 x 32 x 4: the first stage of `latent_dit.py`.

COMMAND   mmgen train experiments/imagenet_autoencoder.py --workdir runs/imagenet_autoencoder
NEEDS     tfds.builder("imagenet2012", file_format="array_record").download_and_prepare(), and an accelerator
EXPECTED  not measured here. Without the perceptual and adversarial losses of Rombach et al. (2022, arXiv:2112.10752)
          what is fine and irregular comes back smooth

An ordinary VAE of one modality. Its likelihood says that pixels are right to about 0.02, so the KL term is small
against it and the code keeps what a picture needs.
"""

import mmgen_jax as mm
from mmgen_jax.nn.grid import GridDecoder, GridEncoder

imagenet = mm.data.Square(mm.data.Tfds("imagenet2012", {"image": "image", "label": "label"}, test="validation[:2000]"))


def autoencoder(side: int, widths: tuple[int, ...], blocks: int) -> mm.VAE:
    """For pictures of side x side; the cells of the code are fewer by a factor of 2 for each width but the first."""
    shape, cells = (side, side, 3), side // 2 ** (len(widths) - 1)
    networks = {"encoder": GridEncoder(4, widths, blocks), "decoder": GridDecoder(shape, widths, blocks)}
    image = mm.Image(*shape, likelihood=mm.Laplace(0.02), **networks)
    objective = mm.vae.MoPoE(beta=mm.vae.Ramp(0.0, 1.0, 5_000))
    return mm.VAE(modalities={"image": image}, latent=4 * cells**2, objective=objective, dtype="bfloat16")


model = autoencoder(256, (128, 256, 512, 512), 2)
tiny = autoencoder(16, (8, 8), 1)  # for tests

experiment = mm.Experiment(
    model=model,
    data=imagenet,
    steps=200_000,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=1e-4, warmup=5_000, ema=0.9999, clip=1.0),
    steps_per_call=1,
    workers=8,
    save_every=5_000,
    evaluators=(mm.evals.Reconstruction(),),
)
