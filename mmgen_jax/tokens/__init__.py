"""Token transformers: every modality becomes symbols, and one transformer fills in whatever is missing."""

from mmgen_jax.tokens.decoding import Choice
from mmgen_jax.tokens.fsq import FSQ
from mmgen_jax.tokens.model import Tokens
from mmgen_jax.tokens.residual import Residual
from mmgen_jax.tokens.sampling import Beam, MaskGIT, RandomOrder, Write
from mmgen_jax.tokens.tasks import Tasks
from mmgen_jax.tokens.tokenizer import Tokenizer
from mmgen_jax.tokens.vq import VQ

__all__ = [
    "FSQ",
    "VQ",
    "Beam",
    "Choice",
    "MaskGIT",
    "RandomOrder",
    "Residual",
    "Tasks",
    "Tokenizer",
    "Tokens",
    "Write",
]
