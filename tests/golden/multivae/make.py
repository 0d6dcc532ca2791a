"""Make the fixtures of this folder: what the networks of MultiVae say, with weights and inputs made by a formula.

    pip install torch==2.13.0 multivae==1.0.3     (and a torchvision that goes with that torch)
    python tests/golden/multivae/make.py

A file holds the names and shapes of a whole model's state dict as JSON (`meta`), and for its modality m1 the two codes'
means and log-variances [B, .] and the decoded picture [B, C, H, W], computed in float64 and rounded to float32; and
of the joint encoder, where there is one, mean and log-variance if all modalities are the same picture.
`preactivation.npz` is from the networks below, which have the names and the structure of those published for MMVAE+;
MultiVae's own changed the order of activations.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from multivae.models import JMVAE, MVTCAE, JMVAEConfig, MMVAEPlus, MMVAEPlusConfig, MoPoE, MoPoEConfig, MVTCAEConfig
from multivae.models.base import BaseAEConfig
from multivae.models.nn import default_architectures as mlp
from multivae.models.nn import mmnist
from pythae.models.base.base_utils import ModelOutput

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from multivae_weights import numbers, weights  # noqa: E402

NAMES, SHAPE, LATENT, PRIVATE, BATCH = ("m0", "m1"), (3, 28, 28), 6, 4, 2


class Block(torch.nn.Module):
    """x + 0.1 conv_1(a(conv_0(a(x)))), with a linear short cut where the number of channels changes."""

    def __init__(self, inputs, outputs):
        super().__init__()
        hidden = min(inputs, outputs)
        self.conv_0 = torch.nn.Conv2d(inputs, hidden, 3, padding=1)
        self.conv_1 = torch.nn.Conv2d(hidden, outputs, 3, padding=1)
        self.conv_s = torch.nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else torch.nn.Identity()

    def forward(self, x):
        return self.conv_s(x) + 0.1 * self.conv_1(leaky(self.conv_0(leaky(x))))


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        halve = torch.nn.AvgPool2d(3, stride=2, padding=1)
        self.first = torch.nn.Conv2d(3, 64, 3, padding=1)
        self.blocks = torch.nn.Sequential(Block(64, 64), halve, Block(64, 128), halve, Block(128, 256))

    def forward(self, x):
        return self.blocks(self.first(x)).flatten(1)


class PreactivationEncoder(mmnist.BaseEncoder):
    def __init__(self):
        super().__init__()
        self.latent_dim = LATENT
        for letter, size in (("w", PRIVATE), ("u", LATENT)):
            tower = Tower()
            setattr(self, f"conv_img_{letter}", tower.first)
            setattr(self, f"resnet_{letter}", tower.blocks)
            setattr(self, f"fc_mu_{letter}", torch.nn.Linear(12544, size))
            setattr(self, f"fc_lv_{letter}", torch.nn.Linear(12544, size))

    def forward(self, x):
        w, u = self.resnet_w(self.conv_img_w(x)).flatten(1), self.resnet_u(self.conv_img_u(x)).flatten(1)
        return ModelOutput(
            embedding=self.fc_mu_u(u),
            log_covariance=self.fc_lv_u(u),
            style_embedding=self.fc_mu_w(w),
            style_log_covariance=self.fc_lv_w(w),
        )


class PreactivationDecoder(mmnist.BaseDecoder):
    def __init__(self):
        super().__init__()
        double = torch.nn.Upsample(scale_factor=2)
        self.fc = torch.nn.Linear(LATENT + PRIVATE, 12544)
        self.resnet = torch.nn.Sequential(Block(256, 128), double, Block(128, 64), double, Block(64, 64))
        self.conv_img = torch.nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, z):
        x = self.resnet(self.fc(z).reshape(-1, 256, 7, 7))
        return ModelOutput(reconstruction=self.conv_img(leaky(x)))


def leaky(x):
    return torch.nn.functional.leaky_relu(x, 0.2)


def sizes(latent=LATENT, style=0):
    return BaseAEConfig(input_dim=SHAPE, latent_dim=latent, style_dim=style)


def mvtcae(encoder, decoder):
    config = MVTCAEConfig(n_modalities=len(NAMES), latent_dim=LATENT, input_dims=dict.fromkeys(NAMES, SHAPE))
    return MVTCAE(config, encoders={n: encoder() for n in NAMES}, decoders={n: decoder() for n in NAMES})


def mmvae_plus(encoder, decoder):
    config = MMVAEPlusConfig(
        n_modalities=len(NAMES),
        latent_dim=LATENT,
        modalities_specific_dim=PRIVATE,
        input_dims=dict.fromkeys(NAMES, SHAPE),
    )
    return MMVAEPlus(config, encoders={n: encoder() for n in NAMES}, decoders={n: decoder() for n in NAMES})


def mopoe():
    config = MoPoEConfig(
        n_modalities=len(NAMES),
        latent_dim=LATENT,
        modalities_specific_dim=dict.fromkeys(NAMES, PRIVATE),
        input_dims=dict.fromkeys(NAMES, SHAPE),
    )
    return MoPoE(config)  # its default networks


def jmvae():
    """Its default networks, the joint encoder among them, with the modalities in the order m1, m0."""
    return JMVAE(JMVAEConfig(n_modalities=2, latent_dim=LATENT, input_dims=dict.fromkeys(NAMES[::-1], SHAPE)))


def conv_decoder(latent=LATENT):
    return mmnist.DecoderConvMMNIST(sizes(latent))


CASES = {
    "conv": lambda: mvtcae(lambda: mmnist.EncoderConvMMNIST_adapted(sizes()), conv_decoder),
    "conv_hidden": lambda: mvtcae(lambda: mmnist.EncoderConvMMNIST(sizes()), conv_decoder),
    "conv_towers": lambda: mmvae_plus(
        lambda: mmnist.EncoderConvMMNIST_multilatents(sizes(style=PRIVATE)), lambda: conv_decoder(LATENT + PRIVATE)
    ),
    "resnet": lambda: mvtcae(lambda: mmnist.EncoderResnetMMNIST(0, LATENT), lambda: mmnist.DecoderResnetMMNIST(LATENT)),
    "resnet_towers": lambda: mmvae_plus(
        lambda: mmnist.EncoderResnetMMNIST(PRIVATE, LATENT), lambda: mmnist.DecoderResnetMMNIST(LATENT + PRIVATE)
    ),
    "preactivation": lambda: mmvae_plus(PreactivationEncoder, PreactivationDecoder),
    "mlp": lambda: mvtcae(lambda: mlp.Encoder_VAE_MLP(sizes()), lambda: mlp.Decoder_AE_MLP(sizes())),
    "mlp_private": mopoe,
    "joint": jmvae,
}


def main():
    for case, build in CASES.items():
        model = build().double()
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights(shapes).items()})
        private = PRIVATE if any("style" in name or "fc_mu_w" in name for name in shapes) else 0
        x = torch.from_numpy(abs(numbers("x", BATCH, *SHAPE)))
        z = torch.from_numpy(numbers("z", BATCH, LATENT + private))
        with torch.no_grad():
            code, picture = model.encoders["m1"](x), model.decoders["m1"](z)["reconstruction"]
            if hasattr(model, "joint_encoder"):
                joint = model.joint_encoder(dict.fromkeys(NAMES[::-1], x))
                code = {**code, **{f"joint_{name}": value for name, value in joint.items()}}
        meta = {"shapes": shapes, "shape": SHAPE, "latent": LATENT, "private": private, "batch": BATCH}
        outputs = {name: value.float().numpy() for name, value in {**code, "picture": picture}.items()}
        np.savez_compressed(HERE / f"{case}.npz", meta=json.dumps(meta), **outputs)


if __name__ == "__main__":
    main()
