"""Tokenizers: autoencoders whose code is a grid of symbols, trained before a transformer sees the symbols instead.

    z = encoder_m(x_m),  a vector for each cell of a grid;   e, k = quantiser(z)                                    (1)
    L = sum_m w_m (-log p(x_m | decoder_m(e)) / values of x_m + mean error of the quantiser)                        (2)

The networks are the modality's own, whatever its shape. With `nn.grid.GridEncoder(channels, parts=1)`, where channels
are the width of the quantiser, cells are where they say they are, and with `causal=True` symbols of a clip know nothing
of what comes later in it; other networks may put anything into any cell.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import FrozenDict

from mmgen_jax.modalities.given import answered
from mmgen_jax.modalities.places import on_axes
from mmgen_jax.rng import fold_name
from mmgen_jax.tokens.fsq import FSQ
from mmgen_jax.tokens.quantizer import Quantized, Quantizer, usage
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Array, Batch, Key, Metrics, Modality, Params, Stats, TrainState, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Symbols for each of `modalities`, each by itself.

    Attributes:
        modalities: what becomes symbols, by name.
        cells: the grid of the code of each, such as (7, 7).
        quantizer: of the vectors of all cells; its width is that of the code.
        weights: w_m of (2), by name, 1 where none is given.
        dtype: what the networks compute in; parameters, codes and losses are float32.

    Raises:
        ValueError: no modality, one without cells, or cells or weights of none.
    """

    modalities: Mapping[str, Modality]
    cells: Mapping[str, tuple[int, ...]]
    quantizer: Quantizer = FSQ()
    weights: Mapping[str, float] = FrozenDict()
    dtype: Literal["bfloat16", "float32"] = "float32"

    def __post_init__(self) -> None:
        for field in ("modalities", "cells", "weights"):  # frozen mappings, so that a model can be hashed
            object.__setattr__(self, field, FrozenDict(getattr(self, field)))
        if not self.modalities or self.cells.keys() != self.modalities.keys():
            raise ValueError(
                f"cells are of {list(self.cells)}, but must be of the modalities, {list(self.modalities)}, at least one"
            )
        for name, cells in self.cells.items():
            if not isinstance(cells, tuple) or not cells or any(type(n) is not int or n < 1 for n in cells):
                raise ValueError(f"cells[{name!r}] is {cells!r}, but must be a tuple of whole numbers of at least 1")
        for name, weight in self.weights.items():
            if name not in self.modalities or not weight >= 0:
                raise ValueError(
                    f"weights[{name!r}] is {weight}, but names must be of {list(self.modalities)}, weights at least 0"
                )

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that can be generated: all."""
        return tuple(self.modalities)

    def code_size(self, name: str) -> int:
        """The number of real numbers in the code of a modality."""
        return math.prod(self.cells[name]) * self.quantizer.width

    def token_count(self, name: str) -> int:
        """The number of symbols of an example of a modality."""
        return math.prod(self.cells[name]) * self.quantizer.symbols

    def places(self, name: str) -> np.ndarray:
        """Where the symbols are on all of `places.AXES`, [T, 4]: cells spread over the patches of the modality."""
        modality, cells = self.modalities[name], self.cells[name]
        axes, ends = modality.axes, modality.positions()
        if len(cells) == len(axes) and len(ends) > 1:
            low, high = ends.min(0), ends.max(0)
            parts = [a + (b - a) * (np.arange(n) + 0.5) / n for a, b, n in zip(low, high, cells, strict=True)]
        else:  # cells in no known order, one after the other
            axes, parts = ("index",), [np.arange(math.prod(cells))]
        centres = np.stack([part.ravel() for part in np.meshgrid(*parts, indexing="ij")], axis=-1)
        return np.repeat(on_axes(centres, axes), self.quantizer.symbols, axis=0)

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh networks and quantisers, by modality."""
        params, stats = {}, {}
        for name, modality in self.modalities.items():
            encoder, decoder = self._networks(name)
            x = jax.ShapeDtypeStruct((1, *modality.shape), modality.dtype)
            z = jax.ShapeDtypeStruct((1, self.code_size(name)), jnp.float32)
            learned, stats[name] = self.quantizer.init(fold_name(key, f"quantizer/{name}"))
            params[name] = {
                "encoder": encoder.lazy_init(fold_name(key, f"encoder/{name}"), x)["params"],
                "decoder": decoder.lazy_init(fold_name(key, f"decoder/{name}"), z)["params"],
                "quantizer": learned,
            }
        return params, {"quantizer": stats}

    def part(self, variables: Variables, name: str) -> Variables:
        """What of the variables is about one modality; enough to make symbols of it, and back."""
        return {
            "params": {name: variables["params"][name]},
            "quantizer": {name: variables["quantizer"][name]},
        }

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """One step of gradient descent on (2), and of what else the quantisers learn by."""
        state, metrics = gradient_step(self._loss, tx, state, batch, key)
        params = {
            name: {**own, "quantizer": self.quantizer.settle(own["quantizer"], state.stats["quantizer"][name])}
            for name, own in state.params.items()
        }
        return state.replace(params=params), metrics

    def _loss(self, params: Params, stats: Stats, batch: Batch, key: Key) -> tuple[Array, tuple[Stats, dict]]:
        """(2), [B], of a batch that is `masked()`; the statistics that follow from it, and what to log."""
        variables, terms, new, total = {"params": params, **stats}, {}, {}, 0.0
        for name, modality in self.modalities.items():
            there, x = batch.present[name], batch.values[name]
            z = self._encoded(variables, name, x)
            learned, known = params[name]["quantizer"], stats["quantizer"][name]
            q = self.quantizer(learned, known, z)
            new[name] = self.quantizer.update(learned, known, z, q.indices, there, fold_name(key, name))
            decode = functools.partial(self._networks(name)[1].apply, {"params": params[name]["decoder"]})
            nats = modality.log_prob(decode, q.codes.reshape(len(x), -1), x) / math.prod(modality.shape)
            terms[f"nats/{name}"] = jnp.where(there, nats, 0.0)
            terms[f"error/{name}"] = jnp.where(there, q.error.mean(-1), 0.0)
            total += self.weights.get(name, 1.0) * (terms[f"error/{name}"] - terms[f"nats/{name}"])
            used = jnp.broadcast_to(there[:, None, None], q.indices.shape)
            terms |= {f"{k}/{name}": v for k, v in usage(q.indices, used, self.quantizer.size).items()}
        return total, ({"quantizer": new}, terms)

    def to_tokens(self, variables: Variables, name: str, x: Array) -> Array:
        """Symbols, int32 [B, T], of a modality [B, *shape]."""
        return self._quantized(variables, name, x).indices.reshape(len(x), -1)

    def from_tokens(self, variables: Variables, name: str, tokens: Array) -> Array:
        """A modality [B, *shape], without noise, from symbols [B, T]."""
        own, stats = variables["params"][name], variables["quantizer"][name]
        indices = tokens.reshape(len(tokens), -1, self.quantizer.symbols)
        codes = self.quantizer.codes(own["quantizer"], stats, indices)
        decode = functools.partial(self._networks(name)[1].apply, {"params": own["decoder"]})
        return self.modalities[name].generate(decode, codes.reshape(len(tokens), -1).astype(jnp.float32), None)

    @functools.partial(jax.jit, static_argnums=0)
    def reconstruct(self, variables: Variables, batch: Batch, key: Key) -> dict[str, Array]:
        """Each modality [B, *shape] from its own symbols."""
        values = batch.masked().values
        return {
            name: self.from_tokens(variables, name, self.to_tokens(variables, name, values[name]))
            for name in self.modalities
        }

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
    ) -> dict[str, Array]:
        """n examples of `targets` from symbols that all are equally probable: how they go together is not learned here.

        given: see `modalities.given.answered`. Raises ValueError for names and shapes that are not the model's.
        """

        def make(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
            made = {}
            for name in wanted:
                shape = (n, self.token_count(name))
                tokens = jax.random.randint(fold_name(key, name), shape, 0, self.quantizer.size)
                made[name] = self.from_tokens(variables, name, tokens)
            return made

        return answered(self.modalities, self.makes, n, given, targets, make)

    def _networks(self, name: str) -> tuple[Any, Any]:
        modality, dtype = self.modalities[name], jnp.dtype(self.dtype)
        return modality.encoder_network(self.code_size(name), dtype), modality.decoder_network(dtype)

    def _encoded(self, variables: Variables, name: str, x: Array) -> Array:
        """The vectors of (1), [B, cells, width] in float32."""
        encoder, params = self._networks(name)[0], variables["params"][name]["encoder"]
        return encoder.apply({"params": params}, x).reshape(len(x), -1, self.quantizer.width).astype(jnp.float32)

    def _quantized(self, variables: Variables, name: str, x: Array) -> Quantized:
        learned, stats = variables["params"][name]["quantizer"], variables["quantizer"][name]
        return self.quantizer(learned, stats, self._encoded(variables, name, x))
