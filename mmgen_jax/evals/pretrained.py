"""Networks that were trained elsewhere: functions of named weights, whose file says what they are.

A network is written once, as a function of `get`, which it asks for every weight by name and shape:

    get = look the weight up               the network
    get = note the shape, return zeros     what a file has to hold to be the weights of this network      (`shapes`)

The name, version and SHA-256 of what has spoken are left beside the judges of a run (`stamp`), and from there get into
`evaluation.json`, so that numbers of different weights are never compared unnoticed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmgen_jax.evals.sampling import batches
from mmgen_jax.types import Array, EvalData, Modality

Weights = Mapping[str, Array]
Get = Callable[..., Array]  # (name, *shape) -> array


def shapes(network: Callable[..., Any], *inputs: Any) -> dict[str, tuple[int, ...]]:
    """The weights that `network(get, *inputs)` asks for. Nothing is computed; inputs may be `ShapeDtypeStruct`s."""
    found: dict[str, tuple[int, ...]] = {}

    def get(name: str, *shape: int) -> Array:
        found[name] = shape
        return jnp.zeros(shape)

    jax.eval_shape(lambda *inputs: network(get, *inputs), *inputs)
    return found


def getter(weights: Weights) -> Get:
    """The `get` of weights that have the right shapes (`fitting`)."""
    return lambda name, *shape: weights[name]


def fitting(owner: str, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]) -> Weights:
    """Those of some arrays that are wanted, float32, on the device.

    Raises:
        ValueError: in the name of `owner`: one is missing or has another shape.
    """
    for name, shape in wanted.items():
        if name not in arrays:
            raise ValueError(f"{owner}: the file has no {name}, so its weights are of another network")
        if arrays[name].shape != shape:
            raise ValueError(f"{owner}: {name} has the shape {arrays[name].shape}, but must have {shape}")
    return jax.device_put({name: np.asarray(arrays[name], np.float32) for name in wanted})


def stamp(data: EvalData, modality: str, network: str, version: str, sha256: str) -> None:
    """Leave word of what looked at a modality where the judges of a run are kept."""
    known = {"modality": f"{modality}, {network}", "version": version, "sha256": sha256}
    data.cache.mkdir(parents=True, exist_ok=True)
    path = Path(data.cache) / f"{modality}-{network.lower().replace(' ', '-')}-{sha256[:12]}.json"
    path.write_text(json.dumps(known, indent=2))


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A judge that is a network with its weights.

    Attributes:
        look: (weights, inputs) -> {"features": [n, D]}, and "logits" [n, classes] where there are classes; compiled.
        prepare: examples [n, *shape] -> inputs, on the host.
    """

    weights: Weights
    look: Callable[[Weights, Array], dict[str, Array]]
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray

    def features(self, x: np.ndarray) -> np.ndarray:
        """x [N, *shape] -> [N, D]."""
        return self.outputs(x)["features"]

    def classes(self, x: np.ndarray) -> np.ndarray:
        """x [N, *shape] -> the most probable class, int [N]."""
        return self.outputs(x)["logits"].argmax(-1)

    def outputs(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """All that the network says of examples x [N, *shape]."""
        return batches(lambda _, rows: self.look(self.weights, self.prepare(x[rows])), len(x))


def require_pictures(owner: str, name: str, modality: Modality) -> None:
    """Raises ValueError unless a modality is one of pictures or clips, of one channel or three."""
    shape = modality.shape
    if len(shape) not in (3, 4) or shape[-1] not in (1, 3) or not np.issubdtype(modality.dtype, np.floating):
        raise ValueError(f"{owner} looks at pictures and clips of one channel or three, but {name!r} is {modality}")


def framewise(look: Callable[[Array], dict[str, Array]], x: Array) -> dict[str, Array]:
    """What `look` says of pictures [N, H, W, 3], for pictures or clips [N, (F,) H, W, C]: of a clip the mean."""
    frames = x.reshape(-1, *x.shape[-3:])
    outputs = look(jnp.broadcast_to(frames, (*frames.shape[:3], 3)))
    return {name: y.reshape(len(x), -1, y.shape[-1]).mean(1) for name, y in outputs.items()}


def convolved(x: Array, kernel: Array, stride: int = 1, padding: Any = "VALID") -> Array:
    """x [N, H, W, I] under a kernel in PyTorch's order [O, I, h, w]."""
    layout = ("NHWC", "OIHW", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)


def linear(get: Get, name: str, x: Array, outputs: int) -> Array:
    """x [..., I] -> [..., outputs] by `name`.weight [outputs, I] and `name`.bias."""
    y = jnp.matmul(x, get(f"{name}.weight", outputs, x.shape[-1]).T, precision="highest")
    return y + channels(get(f"{name}.bias", outputs), y)


def layer_norm(get: Get, name: str, x: Array, epsilon: float) -> Array:
    """x [..., W] at mean 0 and variance 1, times `name`.weight plus `name`.bias."""
    width = x.shape[-1]
    standard = jax.nn.standardize(x, axis=-1, epsilon=epsilon)
    return standard * channels(get(f"{name}.weight", width), x) + channels(get(f"{name}.bias", width), x)


def channels(values: Any, x: Array) -> Array:
    """Values [C], to be combined with x [..., C]."""
    return jnp.asarray(values).reshape((1,) * (x.ndim - 1) + (-1,))
