"""The names of the package, and where they are."""

from . import data, diffusion, evals, gan, tokens, vae
from .config import Experiment, load_experiment
from .diffusion import Flow
from .gan import GAN
from .latent import Latent
from .modalities import (
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
from .run import load_run
from .tokens import Tokenizer, Tokens
from .train.loop import fit
from .train.mesh import Mesh
from .train.optimizer import Optimizer
from .train.players import Players
from .types import Batch, EvalData, TrainState
from .vae import VAE

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
