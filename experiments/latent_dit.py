"""ImageNet at 256 x 256 by class: a transformer of the size DiT-XL/2 (Peebles & Xie 2022, arXiv:2212.09748) over codes.

COMMAND   mmgen train experiments/imagenet_autoencoder.py --workdir runs/imagenet_autoencoder
          mmgen train experiments/latent_dit.py --workdir runs/latent_dit
          mmgen sample runs/latent_dit --given label=207
NEEDS     what the autoencoder needs; `--mesh.fsdp 8` splits the parameters over eight devices
EXPECTED  not measured here

The flow sees codes of 32 x 32 x 4 in patches of 2 x 2, trained as in SiT (Ma et al. 2024, arXiv:2401.08740), and the
class as one more token. `--first.image DIR` takes the autoencoder from elsewhere. ImageNet is streamed, so each step
encodes its own pictures; a data set that fits into memory (`workers=None`) is encoded once.
"""

import imagenet_autoencoder

import mmgen_jax as mm
from mmgen_jax.diffusion.dit import PRESETS


def latent_dit(first: mm.VAE, cells: int, width: int, depth: int, heads: int) -> mm.Latent:
    """A transformer of that size over the codes that `first` has of pictures, [cells, cells, 4]."""
    flow = mm.Flow(
        modalities={"image": mm.Image(cells, cells, 4, patch=2), "label": mm.Label(1000)},
        joint=0,
        width=width,
        depth=depth,
        heads=heads,
        weights={"label": 0.1},
        guidance=mm.diffusion.Guidance(scale=1.5, interval=(0.1, 0.9)),
        steps=50,
        remat="dots",
        dtype="bfloat16",
    )
    return mm.Latent(second=flow, first={"image": first})


model = latent_dit(imagenet_autoencoder.model, 32, **PRESETS["XL"])
tiny = latent_dit(imagenet_autoencoder.tiny, 8, width=32, depth=1, heads=2)  # for tests

experiment = mm.Experiment(
    model=model,
    data=imagenet_autoencoder.imagenet,
    first={"image": "runs/imagenet_autoencoder"},
    steps=400_000,
    batch_size=256,
    optimizer=mm.Optimizer(learning_rate=1e-4, ema=0.9999, clip=1.0),
    steps_per_call=1,
    workers=8,
    save_every=10_000,
)
