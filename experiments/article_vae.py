"""The survey's own example, put right: a 784-512-256-2-256-512-784 autoencoder of MNIST.

COMMAND   mmgen train experiments/article_vae.py --workdir runs/article && mmgen report runs/article
EXPECTED  40 s on two busy CPU cores once the digits are prepared; negative ELBO near 134 nats at the last step

As printed, the article's code trains on an undefined loss: its two code units serve as mean and log-variance at once,
binary cross-entropy gets unbounded outputs and targets in [-1, 1], and the KL term is missing. Here: two heads, logits
and binary pictures, the ELBO of Kingma & Welling (2014, arXiv:1312.6114), and a test set.

Reads tfds `mnist` where it is prepared, otherwise the offline digits.
"""

import mmgen_jax as mm
from mmgen_jax.nn.mlp import MLP

mnist = mm.data.Tfds("mnist", {"image": "image"})
digits = mnist if mm.data.prepared(mnist) else mm.data.Digits()

image = mm.Image(
    28,
    28,
    1,
    likelihood=mm.Bernoulli(),
    encoder=MLP(256, (512,)),
    decoder=MLP((28, 28, 1), (256, 512)),
)

experiment = mm.Experiment(
    model=mm.VAE(modalities={"image": image}, latent=2, objective=mm.vae.MoPoE()),
    data=mm.data.Binarized(digits),
    steps=2000,
    batch_size=100,
    optimizer=mm.Optimizer(learning_rate=1e-3),
    steps_per_call=50,
    evaluators=(mm.evals.Reconstruction(),),
)
