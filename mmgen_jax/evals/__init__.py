"""What measures a model: frozen dataclasses, called as `evaluator(model, variables, data, key) -> {name: value}`."""

from mmgen_jax.evals.clip import CLIP
from mmgen_jax.evals.clip_score import CLIPScore
from mmgen_jax.evals.clips import Clips
from mmgen_jax.evals.codes import Codes
from mmgen_jax.evals.coherence import Coherence
from mmgen_jax.evals.distances import Distances
from mmgen_jax.evals.facts import Facts
from mmgen_jax.evals.features import Classifier, RandomFeatures
from mmgen_jax.evals.inception import Inception
from mmgen_jax.evals.latents import Latents
from mmgen_jax.evals.likelihood import Likelihood
from mmgen_jax.evals.lite import EfficientNetLite
from mmgen_jax.evals.memorisation import Memorisation
from mmgen_jax.evals.minilm import MiniLM
from mmgen_jax.evals.modes import Modes
from mmgen_jax.evals.reconstruction import Reconstruction
from mmgen_jax.evals.retrieval import Retrieval
from mmgen_jax.evals.rotations import Pretext, Rotations
from mmgen_jax.evals.smoothness import Smoothness
from mmgen_jax.evals.sounds import Sounds
from mmgen_jax.evals.speech import SpeechEmbedding
from mmgen_jax.evals.teaching import Teaching
from mmgen_jax.evals.texts import Texts
from mmgen_jax.evals.transcripts import Transcripts
from mmgen_jax.evals.vggish import VGGish
from mmgen_jax.evals.words import Words

__all__ = [
    "CLIP",
    "CLIPScore",
    "Classifier",
    "Codes",
    "Coherence",
    "Distances",
    "EfficientNetLite",
    "Facts",
    "Inception",
    "Latents",
    "Likelihood",
    "Memorisation",
    "MiniLM",
    "Modes",
    "RandomFeatures",
    "Pretext",
    "Reconstruction",
    "Rotations",
    "Smoothness",
    "Clips",
    "Retrieval",
    "Sounds",
    "SpeechEmbedding",
    "Texts",
    "Teaching",
    "Transcripts",
    "VGGish",
    "Words",
]
