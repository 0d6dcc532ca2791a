"""Adversarial networks: one game over all modalities."""

from mmgen_jax.gan import contrastive, presets
from mmgen_jax.gan.augment import ADA, DiffAugment
from mmgen_jax.gan.latent import directions, from_noise, projected, truncated
from mmgen_jax.gan.losses import Hinge, LeastSquares, Minimax, NonSaturating, RaGAN, RpGAN, Wasserstein
from mmgen_jax.gan.model import GAN
from mmgen_jax.gan.networks.biggan import BigGAN
from mmgen_jax.gan.networks.dcgan import DCGAN
from mmgen_jax.gan.networks.mocogan import MoCoGAN
from mmgen_jax.gan.networks.patches import Patches
from mmgen_jax.gan.networks.r3gan import R3GAN
from mmgen_jax.gan.networks.resnet import ResNet
from mmgen_jax.gan.networks.sngan import SNGAN
from mmgen_jax.gan.networks.spade import SPADE
from mmgen_jax.gan.networks.stylegan2 import StyleGAN2
from mmgen_jax.gan.networks.unet import UNet
from mmgen_jax.gan.networks.wavegan import WaveGAN
from mmgen_jax.gan.penalties import DRAGAN, MAGP, R1, R2, WGANGP, ZeroGP
from mmgen_jax.gan.regularizers import Balanced, LeCam, PathLength
from mmgen_jax.gan.translation import Translation
from mmgen_jax.nn.ways import between

__all__ = [
    "ADA",
    "Translation",
    "UNet",
    "SPADE",
    "ResNet",
    "Patches",
    "DCGAN",
    "DRAGAN",
    "DiffAugment",
    "GAN",
    "MAGP",
    "R1",
    "R2",
    "WGANGP",
    "Balanced",
    "BigGAN",
    "Hinge",
    "LeCam",
    "LeastSquares",
    "Minimax",
    "MoCoGAN",
    "NonSaturating",
    "PathLength",
    "R3GAN",
    "RaGAN",
    "RpGAN",
    "SNGAN",
    "StyleGAN2",
    "Wasserstein",
    "WaveGAN",
    "ZeroGP",
    "between",
    "contrastive",
    "directions",
    "from_noise",
    "presets",
    "projected",
    "truncated",
]
