"""Games at the sizes and with the losses they were published with: of a single modality, and from one to another.

    model = mm.gan.presets.sngan()
    small = dataclasses.replace(model, modalities={"image": mm.Image(28, 28, 1, features=32)})

Every function says the optimisers that go with it, for `mm.Players`, as Adam's rate (beta 1, beta 2), and the examples
that a critic sees in an update. What the networks do not have as published is in their own files. With a label among
the modalities, and `projection`, `auxiliary` or `contrastive`, each is the class-conditional game.
"""

from __future__ import annotations

from typing import Any

from mmgen_jax.gan.losses import Hinge, LeastSquares, NonSaturating, RpGAN, Wasserstein
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
from mmgen_jax.gan.networks.wavegan import WaveGAN
from mmgen_jax.gan.penalties import R1, R2, WGANGP
from mmgen_jax.gan.regularizers import PathLength
from mmgen_jax.gan.translation import Translation
from mmgen_jax.modalities import Audio, Image, LabelMap, Video
from mmgen_jax.types import Modality


def dcgan() -> GAN:
    """64 x 64 (Radford et al. 2016, arXiv:1511.06434). Adam 2e-4 (0.5, 0.999) for both, 128 examples."""
    return _game("image", Image(64, 64, features=128), 100, networks=DCGAN(), loss=NonSaturating())


def sngan() -> GAN:
    """CIFAR-10 (Miyato et al. 2018, arXiv:1802.05957). Adam 2e-4 (0, 0.9) for both, linearly to 0, 64 examples."""
    image, fields = Image(32, 32, features=128), {"spectral": "critic", "critic_steps": 5}
    return _game("image", image, 128, networks=SNGAN(wider=2), loss=Hinge(), **fields)


def biggan(side: int = 128) -> GAN:
    """CIFAR-10 at 32, ImageNet at 64 and 128 (Brock et al. 2019, arXiv:1809.11096).

    At 32: Adam 2e-4 (0, 0.999) for both, 50 examples. Else Adam 5e-5 (0, 0.999) for the generator and 2e-4 for critics,
    2,048 examples. Raises ValueError for other sides.
    """
    width, growth, chunk, steps = _of(side, {32: (256, 1, 32, 4), 64: (64, 16, 20, 2), 128: (96, 16, 20, 2)})
    networks, fields = BigGAN(growth=growth, chunk=chunk), {"spectral": "both", "critic_steps": steps}
    return _game("image", Image(side, side, features=width), 128, networks=networks, loss=Hinge(), **fields)


def stylegan2(side: int = 256) -> GAN:
    """FFHQ (Karras et al. 2020, arXiv:1912.04958, arXiv:2006.06676), half as wide as at 1,024 x 1,024.

    Adam 2.5e-3 (0, 0.99) for both, each by `lazily`: 4 for the generator, 16 for critics; 64 examples; an average of
    20,000 images. Raises ValueError for sides other than 32, 64, 128, 256.
    """
    width = _of(side, {side: 16384 // side for side in (32, 64, 128, 256)})
    game = {"penalties": (R1(gamma=side**2 / 2**16, every=16),), "path_length": PathLength(), "width": 512}
    networks = StyleGAN2(growth=512 // width)
    return _game("image", Image(side, side, features=width), 512, networks=networks, loss=NonSaturating(), **game)


def r3gan(side: int = 32) -> GAN:
    """CIFAR-10 at 32, FFHQ at 64 and 256 (Huang et al. 2025, arXiv:2501.05441); gamma as at the beginning.

    Adam 2e-4 (0, 0.9) for both, to 5e-5 along a cosine, 512 examples at 32, else 256. There, but not here, gamma falls
    to a tenth meanwhile, beta 2 rises to 0.99, and critics see augmented examples. Raises ValueError for other sides.
    """
    width, growth, gamma = _of(side, {32: (768, 1, 0.05), 64: (384, 2, 2.0), 256: (96, 8, 150.0)})
    penalties = (R1(gamma=gamma), R2(gamma=gamma))
    networks = R3GAN(growth=growth)
    return _game("image", Image(side, side, features=width), 64, networks=networks, loss=RpGAN(), penalties=penalties)


def wavegan() -> GAN:
    """A second of speech (Donahue et al. 2019, arXiv:1802.04208). Adam 1e-4 (0.5, 0.9) for both, 64 examples."""
    audio, fields = Audio(16384, rate=16000, features=64), {"penalties": (WGANGP(),), "critic_steps": 5}
    return _game("audio", audio, 100, networks=WaveGAN(), loss=Wasserstein(), **fields)


def mocogan() -> GAN:
    """16 frames of 64 x 64 (Tulyakov et al. 2018, arXiv:1707.04993). Adam 2e-4 (0.5, 0.999) for both, 32 examples."""
    return _game("video", Video(16, 64, 64, features=64), 50, networks=MoCoGAN(), loss=NonSaturating())


def pix2pix() -> Translation:
    """Pictures of 256 x 256 in pairs (Isola et al. 2017, arXiv:1611.07004). Adam 2e-4 (0.5, 0.999) for both, one pair.

    The critics' loss counts half there, which to Adam is the same.
    """
    return Translation(modalities=_pictures("map", "photo"), source="map", target="photo", l1=100.0)


def cyclegan() -> Translation:
    """Pictures of 256 x 256 without pairs (Zhu et al. 2017, arXiv:1703.10593).

    Adam 2e-4 (0.5, 0.999) for both, linearly to 0 in the second half; one picture of each.
    Least squares are halved here, and so are the published weights, 10 of the cycle and 5 of the identity.
    """
    ways, weights = {"source": "horse", "target": "zebra"}, {"cycle": 5.0, "identity": 2.5}
    game = {"networks": ResNet(), "loss": LeastSquares(), "paired": False}
    return Translation(modalities=_pictures(*ways.values()), **ways, **game, **weights)


def spade() -> Translation:
    """Cityscapes of 256 x 512 from label maps of 35 classes (Park et al. 2019, arXiv:1903.07291).

    Adam (0, 0.9), 1e-4 for the generator and 4e-4 for critics, 32 pairs. There, but not here, the critic also sees
    where one object ends, and features of a trained network are compared.
    """
    modalities = {"map": LabelMap(256, 512, 35), "photo": Image(256, 512, features=64)}
    game = {"networks": SPADE(), "critics": Patches(layers=4, scales=2), "loss": Hinge(), "spectral": "both"}
    return Translation(modalities=modalities, source="map", target="photo", noise=256, matching=10.0, **game)


def _pictures(*names: str) -> dict[str, Modality]:
    return {name: Image(256, 256, features=64) for name in names}


def _game(name: str, modality: Modality, noise: int, **fields: Any) -> GAN:
    """With so many numbers of noise, of which 16 are the modality's own: alone, it has no use for the difference."""
    return GAN(modalities={name: modality}, noise=noise - 16, own=16, **{"penalties": ()} | fields)


def _of(side: int, table: dict[int, Any]) -> Any:
    """What there is for a side. Raises ValueError if there is nothing."""
    if side not in table:
        raise ValueError(f"side is {side}, but must be one of {list(table)}")
    return table[side]
