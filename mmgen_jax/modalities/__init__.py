"""The kinds of data: each knows its shape, likelihood, default networks, and how to show itself to a person."""

from mmgen_jax.modalities.audio import Audio
from mmgen_jax.modalities.image import Image
from mmgen_jax.modalities.label import Label
from mmgen_jax.modalities.labelmap import LabelMap
from mmgen_jax.modalities.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Laplace, Normal
from mmgen_jax.modalities.text import Text
from mmgen_jax.modalities.tokenizers import Bytes, Characters, Tokenizer, Wordlist
from mmgen_jax.modalities.vector import Vector
from mmgen_jax.modalities.video import Video

__all__ = [
    "Audio",
    "Bernoulli",
    "Bytes",
    "Categorical",
    "Characters",
    "DiscretizedLogistic",
    "Image",
    "Label",
    "LabelMap",
    "Laplace",
    "Normal",
    "Text",
    "Tokenizer",
    "Vector",
    "Video",
    "Wordlist",
]
