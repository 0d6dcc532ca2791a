"""Multimodal variational autoencoders: one model, any fusion of experts, any objective."""

from mmgen_jax.vae.fusion import MixtureOfExperts, MixtureOfProducts, ProductOfExperts, SelfAttention
from mmgen_jax.vae.likelihood import log_likelihood
from mmgen_jax.vae.model import VAE
from mmgen_jax.vae.objectives.mopoe import MoPoE
from mmgen_jax.vae.objectives.mvtcae import MVTCAE

__all__ = [
    "MVTCAE",
    "VAE",
    "MixtureOfExperts",
    "MixtureOfProducts",
    "MoPoE",
    "ProductOfExperts",
    "SelfAttention",
    "log_likelihood",
]
