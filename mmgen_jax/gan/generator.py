"""One generator for all modalities: any of them from noise and any of the others.

    c_m = E_m(x_m)  where m is given, else 0                               condition tokens                    (1)
    h   = W [a z; c_1; ...; c_M; given] + MLP(the same)                    the code that all share              (2)
    y_m = G_m([h + a_m; z_m], ...),   z, z_m ~ N(0, 1)                                                          (3)

z says what is shared, as loud as all c by a = sqrt(numbers in all c / numbers in z); z_m says what is of one modality
only (handwriting, voice); a_m is what it reads of the given by attention, (2) of `attending.py`, if asked for, else 0.
Which are given is data, so one compiled program serves every set. With a single modality there is nothing to share:
y = G(z). Some networks take more noise, of each place or layer; G_m may begin with a mapping to a style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.gan.attending import Reader
from mmgen_jax.gan.networks import Architecture, Noisy, Styled
from mmgen_jax.gan.relaxed import relaxed_shape
from mmgen_jax.nn.conv import depth_to_space
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key, Modality

SHARED = ""  # the name of z among the z_m


class JointGenerator(nn.Module):
    """Equations (1) to (3). Attributes as of `GAN`; `architectures` are those of the modalities."""

    modalities: Mapping[str, Modality]
    architectures: Mapping[str, Architecture]
    width: int
    decoders: Mapping[str, nn.Module] = FrozenDict()
    attends: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        names = sorted(self.modalities)  # so that the order of the modalities changes nothing
        if self.attends:
            self.reader = Reader(self.modalities, self.width, self.dtype)
        if len(names) > 1:
            self.tokens = {name: self.modalities[name].encoder_network(self.width, self.dtype) for name in names}
            self.skip = nn.Dense(self.width, dtype=self.dtype)
            self.hidden, self.out = (nn.Dense(n * self.width, dtype=self.dtype) for n in (2, 1))
        self.networks = {name: self._network(name) for name in names if name not in self.decoders}

    def code(self, noise: Mapping[str, Array], values: Mapping[str, Array], given: Mapping[str, Array]) -> Array:
        """h [B, width] of equation (2): noise by name, values [B, *shape], given bool [B]."""
        if len(self.modalities) == 1:
            return noise[SHARED]
        names = sorted(self.modalities)
        tokens = [jnp.where(given[name][:, None], self.tokens[name](values[name]), 0) for name in names]
        flags = jnp.stack([given[name] for name in names], axis=-1)
        # As loud as all that can be given together, so that it is heard beside that, and matters where nothing is.
        z = noise[SHARED] * math.sqrt(len(names) * self.width / noise[SHARED].shape[-1])
        x = jnp.concatenate([z, *tokens, flags], axis=-1)
        return self.skip(x) + self.out(nn.leaky_relu(self.hidden(x), 0.2))

    def style(self, name: str, h: Array, own: Array) -> Array:
        """What drives G_m: [h; z_m] [B, Z], h with a_m in it, or the style that it makes of it."""
        code = jnp.concatenate([h, own.astype(h.dtype)], axis=-1)
        network = self.networks.get(name)
        return network.style(code) if isinstance(network, Styled) else code

    def make(self, name: str, style: Array, noise: Mapping[str, Array]) -> Array:
        """y_m of equation (3), [B, *relaxed_shape]: out of the network, before a softmax."""
        modality = self.modalities[name]
        if name in self.decoders:
            centre, spread = modality.standard
            return (self.decoders[name](style) - centre) / spread
        space, network = relaxed_shape(modality)[:-1], self.networks[name]
        further = [noise[key] for key in further_noise(name, modality, self.architectures[name])]
        y = (network.made if isinstance(network, Styled) else network)(style, *further)
        return depth_to_space(y, folds(modality))[:, *(slice(n) for n in space), :] if space else y

    def styles(
        self, noise: Mapping[str, Array], values: Mapping[str, Array], given: Mapping[str, Array]
    ) -> dict[str, Array]:
        """`style` of every modality."""
        codes = dict.fromkeys(sorted(self.modalities), self.code(noise, values, given))
        if self.attends:
            tokens = self.reader.tokens(values, given)
            codes = {name: h + self.reader.read(name, h, noise[name], tokens) for name, h in codes.items()}
        return {name: self.style(name, h, noise[name]) for name, h in codes.items()}

    def __call__(
        self, noise: Mapping[str, Array], values: Mapping[str, Array], given: Mapping[str, Array]
    ) -> dict[str, Array]:
        """All modalities, [B, *relaxed_shape] each, whether given or not."""
        return {name: self.make(name, style, noise) for name, style in self.styles(noise, values, given).items()}

    def _network(self, name: str) -> nn.Module:
        modality = self.modalities[name]
        return self.architectures[name].generator(folded_shape(modality), modality.features, self.dtype)


def folds(modality: Modality) -> tuple[int, ...]:
    """How many cells the networks take as one along each axis of space."""
    return (getattr(modality, "fold", 1),) * (len(relaxed_shape(modality)) - 1)


def folded_shape(modality: Modality) -> tuple[int, ...]:
    """Of one example as the networks see it: (*cells, channels)."""
    (*space, channels), fold = relaxed_shape(modality), folds(modality)
    return (*(-(-n // f) for n, f in zip(space, fold, strict=True)), channels * math.prod(fold))


def further_noise(name: str, modality: Modality, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The noise that a modality's network takes beside the code, by name, with its shape for one example."""
    if not isinstance(architecture, Noisy):
        return {}
    return {f"{name}/{i}": shape for i, shape in enumerate(architecture.noise(folded_shape(modality)))}


def draw_noise(key: Key, n: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Normal numbers [n, *shape] by name: z under "", z_m under the name of m, and what else networks take."""
    return {name: jax.random.normal(fold_name(key, f"noise/{name}"), (n, *shape)) for name, shape in shapes.items()}
