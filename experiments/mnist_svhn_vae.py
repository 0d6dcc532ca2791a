"""MNIST and SVHN paired by label, the benchmark of MMVAE (Shi et al. 2019, arXiv:1911.03393), and the label itself.

COMMAND   mmgen train experiments/mnist_svhn_vae.py --workdir runs/mnist_svhn
NEEDS     tfds.builder("mnist", file_format="array_record").download_and_prepare(), and the same of "svhn_cropped"
EXPECTED  not measured here: preparing these sets needs a network. The published MMVAE reaches coherences of 0.86, 0.69
          (one given the other) and 0.42 (joint) after 30 epochs
"""

import mmgen_jax as mm

mnist = mm.data.Tfds("mnist", {"mnist": "image", "label": "label"})
svhn = mm.data.Tfds("svhn_cropped", {"svhn": "image", "label": "label"})

experiment = mm.Experiment(
    model=mm.VAE(
        modalities={
            "mnist": mm.Image(28, 28, 1, likelihood=mm.Laplace(0.75)),
            "svhn": mm.Image(32, 32, 3, likelihood=mm.Laplace(0.75)),
            "label": mm.Label(10),
        },
        latent=20,
        weights={"mnist": 3072 / 784},  # both count alike, as published
        objective=mm.vae.MoPoE(fusion=mm.vae.MixtureOfExperts()),
    ),
    data=mm.data.Paired(mnist, svhn),
    steps=14_000,
    batch_size=128,
    optimizer=mm.Optimizer(learning_rate=1e-3),
    save_every=2_000,
    evaluators=(mm.evals.Coherence(subsets="single"), mm.evals.Reconstruction()),
)
