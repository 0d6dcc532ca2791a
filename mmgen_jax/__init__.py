"""Multimodal generation in JAX: any modalities from any others, four families, one training loop."""

from mmgen_jax import data, diffusion, evals, gan, tokens, vae
from mmgen_jax.config import Experiment, load_experiment
from mmgen_jax.diffusion import Flow
from mmgen_jax.gan import GAN
from mmgen_jax.latent import Latent
from mmgen_jax.modalities import (
    Audio,
    Bernoulli,
    Bytes,
    Categorical,
    Characters,
    DiscretizedLogistic,
    Image,
    Label,
    LabelMap,
    Laplace,
    Normal,
    Text,
    Vector,
    Video,
    Wordlist,
)
from mmgen_jax.run import load_run
from mmgen_jax.tokens import Tokenizer, Tokens
from mmgen_jax.train.loop import fit
from mmgen_jax.train.mesh import Mesh
from mmgen_jax.train.optimizer import Optimizer
from mmgen_jax.train.players import Players
from mmgen_jax.types import Batch, EvalData, TrainState
from mmgen_jax.vae import VAE

__all__ = [
    "Audio",
    "Batch",
    "Bernoulli",
    "Bytes",
    "Categorical",
    "Characters",
    "DiscretizedLogistic",
    "EvalData",
    "Experiment",
    "Flow",
    "GAN",
    "Image",
    "Label",
    "LabelMap",
    "Laplace",
    "Latent",
    "Mesh",
    "Normal",
    "Optimizer",
    "Players",
    "Text",
    "Tokenizer",
    "Tokens",
    "TrainState",
    "VAE",
    "Vector",
    "Video",
    "Wordlist",
    "data",
    "diffusion",
    "evals",
    "fit",
    "gan",
    "load_experiment",
    "load_run",
    "tokens",
    "vae",
]
