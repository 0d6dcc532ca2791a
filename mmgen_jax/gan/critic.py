"""Critics: one for each modality, and one that sees all of them together.

    f_m = F_m(x_m)                                            features of what is present, else 0              (1)
    D_m = w_m . lrelu(f_m)                                    is this a good example of its modality?          (2)
    D   = MLP [f_1; ...; f_M; present; given]                 and do the parts belong together?                (3)
        + sum_{m < n} <P_m f_m, P_n f_n> / sqrt(width)        if asked for                                     (4)
    p(x_n | x_m) = softmax(A_mn lrelu(f_m))                   for every label n != m, if asked for             (5)
    e_m = Q_m lrelu(f_m)                                      what is compared by contrast, if asked for       (6)

With a single modality (2) is all there is. D is told which parts were given, so that it judges what is made of each set
of parts by itself: what is made of nothing could else be all alike and hide among what is made of much. (4) is the
projection of Miyato and Koyama 2018 (arXiv:1802.05637), in which one of two parts is a class: by it alike features mean
that parts belong together, of which an MLP knows nothing. (5) is the auxiliary classifier of Odena et al. 2017
(arXiv:1610.09585). What (5) and (6) are for is in `cooperation.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.gan.generator import folds
from mmgen_jax.gan.networks import Architecture
from mmgen_jax.gan.relaxed import is_symbolic, relaxed_shape
from mmgen_jax.nn.conv import filled, space_to_depth
from mmgen_jax.types import Array, Modality

JOINT = "joint"  # the name of D of (3) among the critics
Parts = Mapping[str, Array]  # by modality


class JointCritic(nn.Module):
    """Equations (1) to (6). Attributes as of `JointGenerator`, and of `GAN`; examples are relaxed (`relaxed.py`)."""

    modalities: Mapping[str, Modality]
    architectures: Mapping[str, Architecture]
    width: int
    projection: bool = False
    auxiliary: bool = False
    contrastive: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        names = sorted(self.modalities)  # so that the order of the modalities changes nothing
        self.networks = {
            n: self.architectures[n].critic(self.width, self.modalities[n].features, self.dtype) for n in names
        }
        self.values = {name: nn.Dense(1, dtype=self.dtype) for name in names}
        if len(names) > 1:
            self.layers = [nn.Dense(2 * self.width, dtype=self.dtype) for _ in range(2)]
            self.value = nn.Dense(1, dtype=self.dtype)
            if self.projection:
                self.projections = {name: nn.Dense(self.width, use_bias=False, dtype=self.dtype) for name in names}
        if self.auxiliary:
            counts = {name: sum(self.others(name).values()) for name in names}
            self.classifiers = {name: nn.Dense(count, dtype=self.dtype) for name, count in counts.items() if count}
        if self.contrastive:
            self.compared = {name: nn.Dense(self.width, dtype=self.dtype) for name in names}

    def others(self, name: str) -> dict[str, int]:
        """The labels other than a modality, each with the number of its classes."""
        return {n: classes for n, classes in labels(self.modalities).items() if n != name}

    def classes(self, features: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        """Logits of (5), [B, classes], by m and n."""
        found = {}
        for name, f in features.items():
            if others := self.others(name):
                logits = precise(self.classifiers[name](nn.leaky_relu(f, 0.2)))
                ends = list(itertools.accumulate(others.values()))[:-1]
                found[name] = dict(zip(others, jnp.split(logits, ends, axis=-1), strict=True))
        return found

    def embeddings(self, features: Mapping[str, Array]) -> dict[str, Array]:
        """Equation (6), [B, width] each."""
        return {name: precise(self.compared[name](nn.leaky_relu(f, 0.2))) for name, f in features.items()}

    def features(self, x: Mapping[str, Array]) -> dict[str, Array]:
        """Equation (1), were all present: [B, *relaxed_shape] -> [B, width] each."""

        def of(name: str, x: Array) -> Array:
            fold = folds(self.modalities[name])
            return self.networks[name](space_to_depth(filled(x, fold), fold) if fold else x)

        return {name: of(name, x[name]) for name in sorted(self.modalities)}

    def joint(self, features: Parts, present: Parts, given: Parts | None = None) -> Array:
        """D [B] of equation (3), and (4) if asked for, of parts that are `present`, bool [B]; given: None for none."""
        parts = {name: jnp.where(present[name][:, None], f, 0) for name, f in features.items()}
        given = {name: jnp.zeros_like(there) for name, there in present.items()} if given is None else given
        flags = jnp.stack([told[name] for told in (present, given) for name in features], axis=-1)
        h = jnp.concatenate([*parts.values(), flags.astype(self.dtype)], axis=-1)
        for layer in self.layers:
            h = nn.leaky_relu(layer(h), 0.2)
        value = precise(self.value(h))[:, 0]
        if not self.projection:
            return value
        projected = [precise(self.projections[name](f)) for name, f in parts.items()]
        # Twice the sum over pairs is the square of the sum less the sum of the squares.
        return value + (sum(projected) ** 2 - sum(p**2 for p in projected)).sum(-1) / (2 * math.sqrt(self.width))

    def judge(self, features: Parts, present: Parts, given: Parts | None = None) -> dict[str, Array]:
        """Every critic's value [B], by name: (2), and (3) where there are several modalities."""
        values = {n: precise(self.values[n](nn.leaky_relu(f, 0.2)))[:, 0] for n, f in features.items()}
        return values | ({JOINT: self.joint(features, present, given)} if len(features) > 1 else {})

    def __call__(self, x: Parts, present: Parts, given: Parts | None = None) -> dict[str, Array]:
        """`judge` of the features of x. All look at the same features, which cost far more than what follows."""
        features = self.features(x)
        if self.is_initializing():  # what is asked for by itself
            for method in (self.classes,) * self.auxiliary + (self.embeddings,) * self.contrastive:
                method(features)
        return self.judge(features, present, given)


def labels(modalities: Mapping[str, Modality]) -> dict[str, int]:
    """The modalities that are one symbol, in order of their names, each with the number of its classes."""
    found = {name: relaxed_shape(modalities[name]) for name in sorted(modalities) if is_symbolic(modalities[name])}
    return {name: shape[0] for name, shape in found.items() if len(shape) == 1}


def precise(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
