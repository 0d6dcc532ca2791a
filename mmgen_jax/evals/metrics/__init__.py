"""Metrics as functions of arrays of features, pictures or texts: numpy, float64, in blocks where n x n matrices arise.

They know no model. What they are called on, how often and against what is the evaluators' business (`mmgen_jax.evals`).
"""

from mmgen_jax.evals.metrics.diversity import vendi_score
from mmgen_jax.evals.metrics.frechet import frechet_at_infinity, frechet_distance, frechet_of_moments
from mmgen_jax.evals.metrics.kernel import Gaussian, Polynomial, draw_subsets, kernel_distance
from mmgen_jax.evals.metrics.memorisation import authentic, copying
from mmgen_jax.evals.metrics.modes import modes_covered, modes_deviation, modes_divergence, modes_floor
from mmgen_jax.evals.metrics.moments import Moments
from mmgen_jax.evals.metrics.motion import consistency, motion
from mmgen_jax.evals.metrics.neighbours import density_coverage, expected_coverage, precision_recall
from mmgen_jax.evals.metrics.retrieval import alignment, recall_at
from mmgen_jax.evals.metrics.scores import class_score
from mmgen_jax.evals.metrics.similarity import ms_ssim, psnr, ssim
from mmgen_jax.evals.metrics.sliced import PyramidDistance, directions, mind, sliced_power
from mmgen_jax.evals.metrics.smoothness import path_length
from mmgen_jax.evals.metrics.sound import log_mel_distance

__all__ = [
    "Gaussian",
    "Moments",
    "Polynomial",
    "PyramidDistance",
    "alignment",
    "authentic",
    "class_score",
    "consistency",
    "copying",
    "density_coverage",
    "directions",
    "draw_subsets",
    "expected_coverage",
    "frechet_at_infinity",
    "frechet_distance",
    "frechet_of_moments",
    "kernel_distance",
    "log_mel_distance",
    "mind",
    "modes_covered",
    "modes_deviation",
    "modes_divergence",
    "modes_floor",
    "motion",
    "ms_ssim",
    "path_length",
    "precision_recall",
    "psnr",
    "recall_at",
    "sliced_power",
    "ssim",
    "vendi_score",
]
