"""Multimodal variational autoencoders: one model, any fusion of experts, any objective."""

from mmgen_jax.vae.cvae import CVAE
from mmgen_jax.vae.fusion import (
    GeneralizedProduct,
    JointEncoder,
    MixtureOfExperts,
    MixtureOfProducts,
    ProductOfExperts,
    SelfAttention,
    SumPooling,
)
from mmgen_jax.vae.likelihood import log_likelihood
from mmgen_jax.vae.mhvae import MHVAE
from mmgen_jax.vae.model import VAE, equal_dimensions
from mmgen_jax.vae.multivae import from_multivae
from mmgen_jax.vae.nexus import Nexus
from mmgen_jax.vae.objectives.cmvae import CMVAE
from mmgen_jax.vae.objectives.crmvae import CRMVAE
from mmgen_jax.vae.objectives.dmvae import DMVAE
from mmgen_jax.vae.objectives.jmvae import JMVAE
from mmgen_jax.vae.objectives.jnf import JNF
from mmgen_jax.vae.objectives.masked import MaskedBound
from mmgen_jax.vae.objectives.mmjsd import MMJSD
from mmgen_jax.vae.objectives.mmvae import MMVAE
from mmgen_jax.vae.objectives.mmvae_plus import MMVAEPlus
from mmgen_jax.vae.objectives.mmvamp import MMVAMP
from mmgen_jax.vae.objectives.mopoe import ELBO, MoPoE
from mmgen_jax.vae.objectives.mvae import MVAE
from mmgen_jax.vae.objectives.mvtcae import MVTCAE
from mmgen_jax.vae.objectives.telbo import TELBO
from mmgen_jax.vae.priors.flow import FlowPrior
from mmgen_jax.vae.priors.flow_matching import FlowMatchingPrior
from mmgen_jax.vae.priors.gaussian_mixture import GaussianMixturePrior
from mmgen_jax.vae.schedules import Ramp

__all__ = [
    "CMVAE",
    "CRMVAE",
    "CVAE",
    "DMVAE",
    "ELBO",
    "JMVAE",
    "JNF",
    "MHVAE",
    "MMJSD",
    "MMVAE",
    "MMVAMP",
    "MVAE",
    "MVTCAE",
    "TELBO",
    "VAE",
    "FlowMatchingPrior",
    "FlowPrior",
    "GaussianMixturePrior",
    "GeneralizedProduct",
    "JointEncoder",
    "MMVAEPlus",
    "MaskedBound",
    "MixtureOfExperts",
    "MixtureOfProducts",
    "MoPoE",
    "Nexus",
    "ProductOfExperts",
    "Ramp",
    "SelfAttention",
    "SumPooling",
    "equal_dimensions",
    "from_multivae",
    "log_likelihood",
]
