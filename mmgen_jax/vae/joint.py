"""What every variational model of several modalities has: weights, decoders, the step, and the door to generation.

A model is this class with its own parameters, loss, and `decoded`, which draws codes and decodes them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from mmgen_jax.modalities.given import answered, known
from mmgen_jax.rng import fold_name
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Array, Batch, Estimate, Key, Metrics, Modality, Params, Stats, TrainState, Variables
from mmgen_jax.vae.likelihood import log_likelihood
from mmgen_jax.vae.priors import Fitted
from mmgen_jax.vae.schedules import Ramp, Schedule, at

Code = Literal["draw", "mean"]


class Ordered(FrozenDict):
    """A frozen mapping that equals another only in the same order, which is that of the experts and of what is learned
    for each: a program compiled for one order must not serve another."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ordered) and list(self.items()) == list(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointModel:
    """A joint model of `modalities`.

    Attributes:
      modalities: what is modelled, by name.
      weights: factor on the log-likelihood of a modality, by name, 1 where none is given; a `Ramp` changes with the
        step. Likelihoods add up over dimensions, so a large picture drowns a label that is not weighted
        (`equal_dimensions` weighs by size).
      dtype: what the networks compute in; parameters, likelihoods and codes are float32 or better.

    Raises:
      ValueError: there is no modality, or a weight names none or is not positive.
    """

    modalities: Mapping[str, Modality]
    weights: Mapping[str, Schedule] = FrozenDict()
    dtype: Literal["bfloat16", "float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # frozen mappings, so that a model can be hashed
            if isinstance(getattr(self, field.name), Mapping):
                kind = Ordered if field.name == "modalities" else FrozenDict
                object.__setattr__(self, field.name, kind(getattr(self, field.name)))
        if not self.modalities:
            raise ValueError("modalities is empty, but a model needs at least one")
        self._check_by_name("weights", self.weights)

    def loss(self, params: Params, batch: Batch, noise: Any, step: Array) -> tuple[Array, Mapping[str, Array]]:
        """The objective [B] of a batch that is `masked()`, and its unweighted terms by name, [B] or [M, B] each.

        `noise` is a key, or the random numbers themselves in the form that this model takes.
        """
        raise NotImplementedError

    def decoded(self, params: Params, batch: Batch, key: Key, wanted: tuple[str, ...], code: Code) -> dict[str, Array]:
        """The modalities `wanted`, from codes that are drawn, or the mean, given what is present of a masked batch."""
        raise NotImplementedError

    def decoded_from(
        self, params: Params, batch: Batch, key: Key, wanted: tuple[str, ...], start: Array
    ) -> dict[str, Array]:
        """The same with codes `start` [B, .] of a fitted prior for examples of which nothing is given."""
        raise ValueError(f"{type(self).__name__} has no codes that a prior could be fitted to")

    def log_weight(self, params: Params, batch: Batch) -> Callable[[Key, Array], Array]:
        """What `log_likelihood` averages, for a batch that is `masked()`: a function of the draw, log W [B] in nats.

        A draw is a key, and a quantile [B] in [0, 1) by which a posterior that is a mixture takes its component.
        """
        raise NotImplementedError

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that can be generated; the others can only be given."""
        return tuple(self.modalities)

    def frozen_from(self) -> Mapping[str, int]:
        """Groups of parameters that stay as they are from a step on."""
        return {}

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """One step of gradient descent on the mean of `loss`."""

        def loss(params: Params, stats: Stats, batch: Batch, key: Key) -> tuple[Array, tuple[Stats, dict]]:
            per_example, terms = self.loss(params, batch, key, state.step)
            return per_example, (stats, self._by_name(terms))

        new, metrics = gradient_step(loss, tx, state, batch, key)
        params = dict(new.params)
        for group, start in self.frozen_from().items():
            # A zero gradient is not enough to keep parameters: momentum and weight decay would still move them.
            move = functools.partial(jnp.where, state.step < start)
            params[group] = jax.tree.map(move, new.params[group], state.params[group])
        return new.replace(params=params), metrics

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
        prior: Fitted | None = None,
    ) -> dict[str, Array]:
        """n examples of `targets` (default `makes`), given some modalities: see `modalities.given.answered`.

        Nothing given: from the prior, or from `prior` if one was fitted (`fit_prior`). The code is drawn; the decoders
        answer with their mean or most probable value, since noise drawn per pixel shows nothing.

        Raises:
          ValueError: a name is no modality, one is wanted that this model cannot make and that is not given, or what is
            given has the wrong shape.
        """

        def make(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
            return generate(self, wanted, variables["params"], batch, key, prior, code="draw")

        return answered(self.modalities, self.makes, n, given, targets, make)

    def log_likelihood(
        self, variables: Variables, batch: Batch, key: Key, of: tuple[str, ...], draws: int | None = None
    ) -> Estimate:
        """log p of the modalities `of`, given all others that are present: see `likelihood.py` and `types.Likely`.

        draws: of codes, 100 by default; published numbers have 1,000 or more.
        Raises ValueError as `likelihood.log_likelihood`.
        """
        for name in of:
            known(self.modalities, name)
        given = tuple(name for name in self.modalities if name not in of)
        return log_likelihood(self, variables["params"], batch, key, 100 if draws is None else draws, given=given)

    def reconstruct(self, variables: Variables, batch: Batch, key: Key) -> dict[str, Array]:
        """What the model `makes`, decoded from the mean of the posterior given all that is present."""
        return generate(self, self.makes, variables["params"], batch, key, code="mean")

    def alone(self, name: str, x: Array) -> Batch:
        """The batch in which one modality, x [B, *shape], is all that is there."""
        values = {n: jnp.zeros((len(x), *m.shape), m.dtype) for n, m in self.modalities.items()}
        return Batch({**values, name: x}, {n: jnp.full(len(x), n == name) for n in self.modalities})

    def from_code(self, variables: Variables, name: str, code: Array) -> Array:
        """A modality [B, *shape], without noise, from the numbers [B, .] that its decoder takes."""
        return self.modalities[name].generate(self.decoder(variables["params"], name), code, None)

    def decoder(self, params: Params, name: str) -> Callable[..., Any]:
        """The decoder of a modality with its parameters in it, as the modality's methods want it."""
        network = self.modalities[name].decoder_network(jnp.dtype(self.dtype))
        return functools.partial(network.apply, {"params": params["decoders"][name]})

    def decoder_params(self, name: str, key: Key, code: int) -> Params:
        """Fresh parameters of a decoder. Only the modality knows what it calls it with, so it is asked to score x."""
        modality, network = self.modalities[name], self.modalities[name].decoder_network(jnp.dtype(self.dtype))
        key, called_with = fold_name(key, f"decoder/{name}"), []

        def decode(*inputs: Array) -> Array:
            called_with.extend(jax.ShapeDtypeStruct(i.shape, i.dtype) for i in inputs)
            return network.init_with_output(key, *inputs)[0]

        x = jax.ShapeDtypeStruct((1, *modality.shape), modality.dtype)
        z = jax.ShapeDtypeStruct((1, code), jnp.float32)
        jax.eval_shape(lambda z, x: modality.log_prob(decode, z, x), z, x)
        return network.lazy_init(key, *called_with)["params"]

    def encoder(self, params: Params, name: str, x: Array, outputs: int) -> Array:
        """What the encoder of a modality says of x [B, *shape]: [B, outputs], float32 or better."""
        network = self.modalities[name].encoder_network(outputs, jnp.dtype(self.dtype))
        out = network.apply({"params": params["encoders"][name]}, x)
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))

    def encoder_params(self, name: str, key: Key, outputs: int) -> Params:
        """Fresh parameters of an encoder."""
        modality = self.modalities[name]
        x = jax.ShapeDtypeStruct((1, *modality.shape), modality.dtype)
        network = modality.encoder_network(outputs, jnp.dtype(self.dtype))
        return network.lazy_init(fold_name(key, f"encoder/{name}"), x)["params"]

    def weights_at(self, step: Array) -> Array:
        """The weights [M] at a step."""
        return jnp.stack([at(self.weights.get(name, 1.0), step) for name in self.modalities])

    def _by_name(self, terms: Mapping[str, Array]) -> dict[str, Array]:
        """Terms [M, B] become one metric a modality."""
        named = {}
        for term, value in terms.items():
            if value.ndim == 2:
                named |= {f"{term}/{name}": row for name, row in zip(self.modalities, value, strict=True)}
            else:
                named[term] = value
        return named

    def _check_by_name(self, field: str, mapping: Mapping[str, Any]) -> None:
        """Raise ValueError where a mapping by modality names another, or holds what is not positive."""
        for name, value in mapping.items():
            if name not in self.modalities:
                raise ValueError(f"{field} names {name!r}, but the modalities are {list(self.modalities)}")
            if not isinstance(value, Ramp) and value <= 0:
                raise ValueError(f"{field}[{name!r}] is {value}, but must be positive")


@functools.partial(jax.jit, static_argnames=("model", "wanted", "code"))
def generate(
    model: JointModel,
    wanted: tuple[str, ...],
    params: Params,
    batch: Batch,
    key: Key,
    prior: Fitted | None = None,
    *,
    code: Code,
) -> dict[str, Array]:
    """`model.decoded`, compiled: one program for every set of given modalities, which are data, not structure."""
    if prior is None:
        return model.decoded(params, batch.masked(), key, wanted, code)
    start = prior.sample(fold_name(key, "fitted prior"), len(batch))
    return model.decoded_from(params, batch.masked(), key, wanted, start)
