"""Features of Inception v3, the network that FID rests on, for weights that the user has.

The network is that of Szegedy et al. 2016 (arXiv:1512.00567): every convolution without a bias, then a normalisation
with fixed statistics and ReLU,

    y = max(0, (conv(x) - m) g / sqrt(v + 1e-3) + b)                                                              (1)

in blocks whose branches stand side by side in channels (`MIXED`). The graph of 2015 that FID was defined with (Heusel
et al. 2017, arXiv:1706.08500) differs from what was published later in three places, and so does this one: the mean in
a block does not count what lies outside the picture, the last block takes the maximum instead, and there are 1,008
classes. Names of weights are those of torchvision's Inception3, in which the ports of that graph come as well
(`Mixed_5b.branch1x1.conv.weight`, `...bn.running_mean`). Weights trained for that other network fit too, but then the
distance is no FID; the hash in the protocol tells.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from mmgen_jax.evals.pretrained import (
    Get,
    Pretrained,
    Weights,
    channels,
    convolved,
    fitting,
    framewise,
    getter,
    linear,
    require_pictures,
    shapes,
    stamp,
)
from mmgen_jax.evals.weights_file import read_weights
from mmgen_jax.types import Array, EvalData, Modality

NAME, VERSION = "Inception-v3", "1"
SIDE, CLASSES = 299, 1008
EPSILON = 1e-3

# A convolution: (name, channels, height and width of the kernel, stride, padded to the same size or not).
Conv = tuple[str, int, int, int, int, bool]
Branch = tuple[str | Conv | tuple[Conv, ...], ...]  # one after the other; a tuple of them stands side by side


def conv(name: str, out: int, height: int = 1, width: int | None = None, stride: int = 1, same: bool = True) -> Conv:
    return name, out, height, height if width is None else width, stride, same


STEM: Branch = (
    conv("Conv2d_1a_3x3", 32, 3, stride=2, same=False),
    conv("Conv2d_2a_3x3", 32, 3, same=False),
    conv("Conv2d_2b_3x3", 64, 3),
    "max, halved",
    conv("Conv2d_3b_1x1", 80, same=False),
    conv("Conv2d_4a_3x3", 192, 3, same=False),
    "max, halved",
)


def small(pool: int) -> tuple[Branch, ...]:
    return (
        (conv("branch1x1", 64),),
        (conv("branch5x5_1", 48), conv("branch5x5_2", 64, 5)),
        (conv("branch3x3dbl_1", 64), conv("branch3x3dbl_2", 96, 3), conv("branch3x3dbl_3", 96, 3)),
        ("mean", conv("branch_pool", pool)),
    )


def long(width: int) -> tuple[Branch, ...]:
    """With kernels of seven in a row or a column."""
    there = conv("branch7x7_1", width), conv("branch7x7_2", width, 1, 7), conv("branch7x7_3", 192, 7, 1)
    twice = (
        conv("branch7x7dbl_1", width),
        conv("branch7x7dbl_2", width, 7, 1),
        conv("branch7x7dbl_3", width, 1, 7),
        conv("branch7x7dbl_4", width, 7, 1),
        conv("branch7x7dbl_5", 192, 1, 7),
    )
    return (conv("branch1x1", 192),), there, twice, ("mean", conv("branch_pool", 192))


def wide(pool: str) -> tuple[Branch, ...]:
    """With branches that part once more."""

    def parted(name: str) -> tuple[Conv, ...]:
        return conv(f"{name}a", 384, 1, 3), conv(f"{name}b", 384, 3, 1)

    return (
        (conv("branch1x1", 320),),
        (conv("branch3x3_1", 384), parted("branch3x3_2")),
        (conv("branch3x3dbl_1", 448), conv("branch3x3dbl_2", 384, 3), parted("branch3x3dbl_3")),
        (pool, conv("branch_pool", 192)),
    )


HALVING_SMALL: tuple[Branch, ...] = (
    (conv("branch3x3", 384, 3, stride=2, same=False),),
    (
        conv("branch3x3dbl_1", 64),
        conv("branch3x3dbl_2", 96, 3),
        conv("branch3x3dbl_3", 96, 3, stride=2, same=False),
    ),
    ("max, halved",),
)
HALVING_LONG: tuple[Branch, ...] = (
    (conv("branch3x3_1", 192), conv("branch3x3_2", 320, 3, stride=2, same=False)),
    (
        conv("branch7x7x3_1", 192),
        conv("branch7x7x3_2", 192, 1, 7),
        conv("branch7x7x3_3", 192, 7, 1),
        conv("branch7x7x3_4", 192, 3, stride=2, same=False),
    ),
    ("max, halved",),
)
MIXED: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": small(32),
    "Mixed_5c": small(64),
    "Mixed_5d": small(64),
    "Mixed_6a": HALVING_SMALL,
    "Mixed_6b": long(128),
    "Mixed_6c": long(160),
    "Mixed_6d": long(160),
    "Mixed_6e": long(192),
    "Mixed_7a": HALVING_LONG,
    "Mixed_7b": wide("mean"),
    "Mixed_7c": wide("max"),
}


def pooled(kind: str, x: Array) -> Array:
    """The mean or maximum of three by three; "max, halved": of every second, none of which lies outside."""
    window = (1, 3, 3, 1)
    if kind == "max, halved":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 2, 2, 1), "VALID")
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 1, 1, 1), "SAME")
    total, count = (
        lax.reduce_window(y, 0.0, lax.add, window, (1, 1, 1, 1), "SAME") for y in (x, jnp.ones((1, *x.shape[1:3], 1)))
    )
    return total / count


def applied(get: Get, prefix: str, branch: Branch, x: Array) -> Array:
    """A branch of x [N, H, W, C]."""
    for part in branch:
        if isinstance(part, str):
            x = pooled(part, x)
        elif isinstance(part[0], tuple):
            x = jnp.concatenate([unit(get, prefix, one, x) for one in part], axis=-1)
        else:
            x = unit(get, prefix, part, x)
    return x


def unit(get: Get, prefix: str, part: Conv, x: Array) -> Array:
    """Equation (1)."""
    name, out, height, width, stride, same = part
    padding = [(height // 2, height // 2), (width // 2, width // 2)] if same else "VALID"
    x = convolved(x, get(f"{prefix}{name}.conv.weight", out, x.shape[-1], height, width), stride, padding)
    mean, variance, scale, bias = (
        channels(get(f"{prefix}{name}.bn.{kind}", out), x) for kind in ("running_mean", "running_var", "weight", "bias")
    )
    return jax.nn.relu((x - mean) * (scale * lax.rsqrt(variance + EPSILON)) + bias)


def network(get: Get, x: Array) -> dict[str, Array]:
    """Features [N, 2048] and logits of pictures [N, 299, 299, 3], values in -1 to 1."""
    x = applied(get, "", STEM, x)
    for name, branches in MIXED.items():
        x = jnp.concatenate([applied(get, f"{name}.", branch, x) for branch in branches], axis=-1)
    features = x.mean((1, 2))
    return {"features": features, "logits": linear(get, "fc", features, CLASSES)}


@jax.jit
def look(weights: Weights, x: Array) -> dict[str, Array]:
    """Features and logits of pictures or clips [N, (F,) H, W, C], C = 1 or 3, values in [0, 1]."""

    def one(frames: Array) -> dict[str, Array]:
        frames = jax.image.resize(frames, (len(frames), SIDE, SIDE, 3), "linear", antialias=False)
        return network(getter(weights), 2 * frames - 1)

    return framewise(one, x)


@dataclasses.dataclass(frozen=True)
class Inception:
    """Features [N, 2048] of pictures, and of clips as the mean over their frames; an `Extractor`.

    A picture is scaled to 299 by 299, bilinearly and without a filter, as in the definition of FID.

    Attributes:
        weights: a .safetensors or .npz file.
    """

    weights: str

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Pretrained:
        """Nothing is learned.

        Raises:
            ValueError: the modality is none of pictures or clips, or the file cannot be read or does not fit.
        """
        require_pictures("Inception", name, modality)
        arrays, sha256 = read_weights(self.weights)
        wanted = shapes(network, jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32))
        stamp(data, name, NAME, VERSION, sha256)
        return Pretrained(fitting("Inception", arrays, wanted), look)
