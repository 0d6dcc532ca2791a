"""The networks of MultiVae as parameters of ours, layer by layer.

    Linear [O, I]                  kernel [I, O]                        (1)
    Conv2d [O, I, h, w]            kernel [h w I, O]                    (2)
    ConvTranspose2d [I, O, h, w]   kernel [h w I, O]                    (3)
    features of a picture          from the order C, H, W to H, W, C    (4)

A network is found among the weights by the `key` that its names begin with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmgen_jax.nn.beside import SideBySide
from mmgen_jax.nn.mlp import DenseDecoder, DenseEncoder
from mmgen_jax.nn.polymnist import ConvDecoder, ConvEncoder, ResNetDecoder, ResNetEncoder, halved
from mmgen_jax.nn.towers import Towers
from mmgen_jax.types import Params

# The names of the layers that say mean and log-variance, of the shared code and of the private one.
HEADS = {
    ConvEncoder: (("class_mu", "class_logvar"), ("style_mu", "style_logvar")),
    ResNetEncoder: (("fc_mu_u", "fc_lv_u"), ("fc_mu_w", "fc_lv_w")),
    DenseEncoder: (("embedding", "log_var"), ("style_embedding", "style_log_var")),
}
PRIORS = ("prior_", "mean_priors.", "logvars_priors.")


class Weights:
    """A state dict that knows what has been taken of it."""

    def __init__(self, state: Mapping[str, np.ndarray]) -> None:
        self.state = state
        self.left = set(state)

    def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """The array of that name. Raises ValueError unless it is there and has that shape."""
        if key not in self.state:
            raise ValueError(f"the weights have no {key!r}, but the model needs it with shape {shape}")
        self.left.discard(key)
        value = np.asarray(self.state[key])
        if value.shape != shape:
            raise ValueError(f"{key!r} has shape {value.shape}, but the model needs {shape}")
        return value

    def check_used_up(self) -> None:
        """Raises ValueError where something is left, besides the zeros of a prior that is not learned."""
        for key in sorted(self.left):
            if not key.startswith(PRIORS) or np.asarray(self.state[key]).any():
                raise ValueError(f"the weights have {key!r}, but the model has no place for it")


def encoder(
    weights: Weights, key: str, network: Any, shape: tuple[int, ...], like: Params, sizes: tuple[int, int]
) -> Params:
    """Of a modality, by `sizes` of the shared and the private code; `like` are the shapes of the result."""
    if isinstance(network, Towers) and type(network.encoder) in (ConvEncoder, ResNetEncoder):
        if network.private != sizes[1]:
            raise ValueError(f"{key} are Towers with private={network.private}, but the model has {sizes[1]}")
        params, tower, made = {}, network.encoder, features(network.encoder, shape)
        for i, (which, names, size) in enumerate(zip(("shared", "own"), HEADS[type(tower)], sizes, strict=True)):
            params[which] = trunk(weights, key, tower, which, like[which], shape)
            params[f"Dense_{i}"] = heads(weights, key, tower, [(head, size) for head in names], made)
        return params
    if type(network) not in HEADS:
        raise ValueError(f"{key} is {network!r}, but weights of MultiVae fit none like it")
    (mean, raw), (own_mean, own_raw) = HEADS[type(network)]
    parts = [(mean, sizes[0]), (own_mean, sizes[1]), (raw, sizes[0]), (own_raw, sizes[1])]
    return {
        "encoder": trunk(weights, key, network, "only", like["encoder"], shape),
        "Dense_0": heads(weights, key, network, [part for part in parts if part[1]], features(network, shape)),
    }


def joint_encoder(weights: Weights, network: SideBySide, shapes: Mapping[str, tuple[int, ...]], like: Params) -> Params:
    """Of modalities with these shapes; `like` are the shapes of the result."""
    key, latent, params = "joint_encoder", network.latent, {}
    for name, shape in shapes.items():  # a copy of its encoder, of which just the mean is used
        copy, whole = f"{key}.encoders.{name}", {"encoder": like[name]}
        made = encoder(weights, copy, network.encoders[name], shape, whole, (latent, 0))
        params[name] = made["encoder"]
        params[f"{name}_mean"] = {end: value[..., :latent] for end, value in made["Dense_0"].items()}
    # There the codes of the modalities lie in the order of its own, which is that of the weights.
    theirs = list(dict.fromkeys(k.split(".")[2] for k in weights.state if k.startswith(f"{key}.encoders.")))
    rows = np.concatenate([theirs.index(name) * latent + np.arange(latent) for name in shapes])
    params["layers"] = {
        f"Dense_{i}": linear(weights, f"{key}.enc.{i}.0", like["layers"][f"Dense_{i}"], rows=None if i else rows)
        for i in range(len(network.hidden))
    }
    last = heads(weights, key, network, [("fc1", latent), ("fc2", latent)], network.hidden[-1:])
    return params | {"Dense_0": last}


def features(network: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what an encoder says of one example, before it is made flat."""
    if isinstance(network, DenseEncoder):
        return network.hidden[-1:]
    if isinstance(network, ResNetEncoder):
        return (*halved(shape[:-1], network.halvings)[-1], network.features * 2**network.halvings)
    return (network.hidden,) if network.hidden else (*halved(shape[:-1], 3)[-1], 128)


def trunk(weights: Weights, key: str, network: Any, tower: str, like: Params, shape: tuple[int, ...]) -> Params:
    """All of an encoder but its heads. tower: "only", or which of two it is."""
    if isinstance(network, DenseEncoder):
        orders = [order(shape)] + [None] * len(network.hidden)
        return {
            f"Dense_{i}": linear(weights, f"{key}.layers.{i}.0", like[f"Dense_{i}"], rows=orders[i])
            for i in range(len(network.hidden))
        }
    if isinstance(network, ResNetEncoder):
        letter = "w" if tower == "own" else "u"
        first = {"Conv3_0": convolution(weights, f"{key}.conv_img_{letter}", like["Conv3_0"])}
        return first | blocks(weights, f"{key}.resnet_{letter}", network.activation_first, like)
    part = {"only": "shared_encoder", "shared": "encoder_class", "own": "encoder_style"}[tower]
    params = {f"Conv3_{i}": convolution(weights, f"{key}.{part}.{2 * i}", like[f"Conv3_{i}"]) for i in range(3)}
    if network.hidden:
        rows = order((*halved(shape[:-1], 3)[-1], 128))
        params["Dense_0"] = linear(weights, f"{key}.{part}.7", like["Dense_0"], rows=rows)
    return params


def heads(weights: Weights, key: str, network: Any, parts: Sequence[tuple[str, int]], shape: tuple[int, ...]) -> Params:
    """Linear layers of the same features, named and sized by `parts`, side by side in one."""
    # A convolution that covers all cells is a linear layer, whose inputs are in the order C, H, W too.
    covering = isinstance(network, ConvEncoder) and not network.hidden
    inputs = (shape[-1], *shape[:-1]) if covering else (math.prod(shape),)
    kernels, biases = [], []
    for name, size in parts:
        kernels.append(weights.take(f"{key}.{name}.weight", (size, *inputs)).reshape(size, -1).T[order(shape)])
        bias = f"{key}.{name}.bias"
        # Those of EncoderConvMMNIST have biases only if it is told so.
        absent = isinstance(network, ConvEncoder) and network.hidden and bias not in weights.state
        biases.append(np.zeros(size) if absent else weights.take(bias, (size,)))
    return {"kernel": np.concatenate(kernels, axis=1), "bias": np.concatenate(biases)}


def decoder(weights: Weights, key: str, network: Any, like: Params) -> Params:
    """Of a modality; `like` are the shapes of the result."""
    if isinstance(network, DenseDecoder):
        last = linear(weights, f"{key}.layers.1.0", like["Dense_1"], columns=order(network.shape))
        return {"Dense_0": linear(weights, f"{key}.layers.0.0", like["Dense_0"]), "Dense_1": last}
    if isinstance(network, ConvDecoder):
        columns = order((*halved(network.shape[:-1], 3)[-1], 128))
        layers = [convolution(weights, f"{key}.decoder.{3 + 2 * i}", like[f"Conv3_{i}"], True) for i in range(3)]
        first = linear(weights, f"{key}.decoder.0", like["Dense_0"], columns=columns)
        return {"Dense_0": first, **{f"Conv3_{i}": layer for i, layer in enumerate(layers)}}
    if isinstance(network, ResNetDecoder):
        width = network.features * 2**network.halvings
        columns = order((*halved(network.shape[:-1], network.halvings)[-1], width))
        last = f"{key}.conv_img" if network.activation_first else f"{key}.conv_img.0"
        params = {"Dense_0": linear(weights, f"{key}.fc", like["Dense_0"], columns=columns)}
        params["Conv3_0"] = convolution(weights, last, like["Conv3_0"])
        return params | blocks(weights, f"{key}.resnet", network.activation_first, like)
    raise ValueError(f"{key} is {network!r}, but weights of MultiVae fit none like it")


def blocks(weights: Weights, key: str, activation_first: bool, like: Params) -> Params:
    """All residual blocks of a network; between any two of them is a layer without weights."""
    names = ("conv_0", "conv_1", "conv_s") if activation_first else ("conv_layers.0", "conv_layers.2", "shortcut_layer")
    params = {}
    for i in range(sum(name.startswith("ResidualBlock") for name in like)):
        block, at = like[f"ResidualBlock_{i}"], f"{key}.{2 * i}"
        made = {f"Conv3_{j}": convolution(weights, f"{at}.{names[j]}", block[f"Conv3_{j}"]) for j in range(2)}
        if "Dense_0" in block:
            inputs, outputs = block["Dense_0"]["kernel"].shape
            made["Dense_0"] = {"kernel": weights.take(f"{at}.{names[2]}.weight", (outputs, inputs, 1, 1))[..., 0, 0].T}
        params[f"ResidualBlock_{i}"] = made
    return params


def linear(
    weights: Weights, key: str, like: Params, *, rows: np.ndarray | None = None, columns: np.ndarray | None = None
) -> Params:
    """Equation (1), its inputs (rows) or outputs (columns) in another order."""
    inputs, outputs = like["kernel"].shape
    kernel, bias = weights.take(f"{key}.weight", (outputs, inputs)).T, weights.take(f"{key}.bias", (outputs,))
    if rows is not None:
        kernel = kernel[rows]
    if columns is not None:
        kernel, bias = kernel[:, columns], bias[columns]
    return {"kernel": kernel, "bias": bias}


def convolution(weights: Weights, key: str, like: Params, transposed: bool = False) -> Params:
    """Equation (2), or (3)."""
    inputs, outputs = like["kernel"].shape[0] // 9, like["kernel"].shape[1]
    sides, axes = ((inputs, outputs), (2, 3, 0, 1)) if transposed else ((outputs, inputs), (2, 3, 1, 0))
    kernel = weights.take(f"{key}.weight", (*sides, 3, 3)).transpose(axes).reshape(-1, outputs)
    return {"kernel": kernel, "bias": weights.take(f"{key}.bias", (outputs,))}


def order(shape: tuple[int, ...]) -> np.ndarray:
    """Equation (4): for each feature of [*space, C] made flat, its place in [C, *space] made flat."""
    *space, channels = shape
    return np.moveaxis(np.arange(math.prod(shape)).reshape(channels, *space), 0, -1).ravel()
