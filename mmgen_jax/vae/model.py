"""The multimodal variational autoencoder.

Every modality m has an encoder q(z | x_m) = N(mean, var), called its expert, and a decoder p(x_m | z). A fusion makes
one posterior of the experts that are there; an objective says what is minimised. Both are values of the model, so any
fusion and objective goes with any modalities. Optional private codes w_m, from which only modality m is decoded, keep
what the others cannot know (handwriting, voice) out of the shared code z.

    joint generation        z ~ N(0, I),             x_m ~ p(x_m | z, w_m),  w_m ~ N(0, I)
    given some of them      z ~ q(z | given),        the same
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import FrozenDict

from mmgen_jax.rng import fold_name
from mmgen_jax.train.step import gradient_step
from mmgen_jax.types import Array, Batch, Key, Metrics, Modality, Params, Stats, TrainState, Variables
from mmgen_jax.vae.latent import Gaussian, Inference, Noise
from mmgen_jax.vae.objectives import Objective
from mmgen_jax.vae.objectives.mvtcae import MVTCAE


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAE:
    """A joint model of `modalities`.

    Attributes:
      modalities: what is modelled, by name.
      latent: dimensions of the shared code z.
      private: dimensions of private codes, by modality; {} for none.
      weights: factor on the log-likelihood of a modality, by name, 1 where none is given. Likelihoods add up over
        dimensions, so a large picture drowns a label that is not weighted.
      objective: what is minimised, and how experts are fused.
      dtype: what the networks compute in; parameters, likelihoods and codes are float32 or better.

    Raises:
      ValueError: a weight or private code names no modality, or a size is not positive.
    """

    modalities: Mapping[str, Modality]
    latent: int = 32
    private: Mapping[str, int] = FrozenDict()
    weights: Mapping[str, float] = FrozenDict()
    objective: Objective = MVTCAE()
    dtype: Literal["bfloat16", "float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for field in ("modalities", "private", "weights"):  # frozen mappings, so that a model can be hashed
            object.__setattr__(self, field, FrozenDict(getattr(self, field)))
        if not self.modalities:
            raise ValueError("modalities is empty, but a VAE needs at least one")
        if self.latent < 1:
            raise ValueError(f"latent is {self.latent}, but must be at least 1")
        for field in ("private", "weights"):
            for name, value in getattr(self, field).items():
                if name not in self.modalities:
                    raise ValueError(f"{field} names {name!r}, but the modalities are {list(self.modalities)}")
                if value <= 0:
                    raise ValueError(f"{field}[{name!r}] is {value}, but must be positive")

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters, and no statistics."""
        encoders, decoders = {}, {}
        for name, modality in self.modalities.items():
            x = jax.ShapeDtypeStruct((1, *modality.shape), modality.dtype)
            code = jax.ShapeDtypeStruct((1, self.latent + self.private.get(name, 0)), jnp.float32)
            encoders[name] = self._encoder(name).lazy_init(fold_name(key, f"encoder/{name}"), x)["params"]
            decoders[name] = decoder_params(modality, self._decoder(name), fold_name(key, f"decoder/{name}"), code, x)
        fusion = self.objective.fusion.init(fold_name(key, "fusion"), self.latent)
        return {"encoders": encoders, "decoders": decoders, "fusion": fusion}, {}

    def encode(self, params: Params, batch: Batch) -> Inference:
        """The experts of a batch that is `masked()`, and what they say together."""
        names = tuple(self.modalities)
        present = jnp.stack([batch.present[name] for name in names])
        codes = {name: self._code(params, name, batch) for name in names}
        shared = {name: jax.tree.map(lambda x: x[:, : self.latent], code) for name, code in codes.items()}
        experts = jax.tree.map(lambda *x: jnp.stack(x), *shared.values())
        private = {name: jax.tree.map(lambda x: x[:, self.latent :], codes[name]) for name in self._private_names}
        joint = self.objective.fusion.joint(params["fusion"], experts, present, names)
        return Inference(experts, present, joint, private)

    def log_likelihoods(self, params: Params, batch: Batch, z: Array, private: Mapping[str, Array]) -> Array:
        """log p(x_m | z, w_m) in nats, [M, B], zero where m is missing."""
        terms = []
        for name, modality in self.modalities.items():
            code = jnp.concatenate([z, private[name]], axis=-1) if name in private else z
            term = modality.log_prob(self._decode(params, name), code, batch.values[name])
            terms.append(jnp.where(batch.present[name], term, 0))
        return jnp.stack(terms)

    def loss(self, params: Params, batch: Batch, noise: Noise | Key, step: Array) -> tuple[Array, Mapping[str, Array]]:
        """The objective [B] of a batch that is `masked()`, and its unweighted terms by name, [B] each."""
        inference = self.encode(params, batch)
        if not isinstance(noise, Noise):
            noise = Noise.draw(noise, inference)
        weights = jnp.array([[self.weights.get(name, 1.0)] for name in self.modalities])
        log_likelihoods = functools.partial(self.log_likelihoods, params, batch)
        return self.objective(inference, log_likelihoods, weights, noise, step)

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """One step of gradient descent on the mean of `loss`."""

        def loss(params: Params, stats: Stats, batch: Batch, key: Key) -> tuple[Array, tuple[Stats, dict]]:
            per_example, terms = self.loss(params, batch, key, state.step)
            return per_example, (stats, self._by_name(terms))

        return gradient_step(loss, tx, state, batch, key)

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
    ) -> dict[str, Array]:
        """n examples of `targets` (default all), given some modalities, each [n, *shape] or one example [*shape].

        Nothing given: from the prior. What is given comes back unchanged. The code is drawn; the decoders answer with
        their mean or most probable value, since noise drawn per pixel shows nothing.

        `given` may also be a Batch of n examples, each with the modalities that are present in it: then one compiled
        program serves every set of them.

        Raises:
          ValueError: a name is no modality, or what is given has the wrong shape.
        """
        targets = tuple(self.modalities) if targets is None else targets
        for name in targets:
            self._known(name)
        if isinstance(given, Batch):
            if given.values.keys() != self.modalities.keys() or len(given) != n:
                raise ValueError(
                    f"given is a batch of {len(given)} with {list(given.values)}, but must have all of "
                    f"{list(self.modalities)} and {n} examples"
                )
            return given.completed(generate(self, targets, variables["params"], given, key, code="draw"))
        given = {name: self._given(name, x, n) for name, x in (given or {}).items()}
        values = {
            name: given.get(name, np.zeros((n, *modality.shape), modality.dtype))
            for name, modality in self.modalities.items()
        }
        present = {name: np.full(n, name in given) for name in self.modalities}
        wanted = tuple(name for name in self.modalities if name in targets and name not in given)
        made = generate(self, wanted, variables["params"], Batch(values, present), key, code="draw")
        together = {**made, **given}
        return {name: together[name] for name in self.modalities if name in together}

    def reconstruct(self, variables: Variables, batch: Batch, key: Key) -> dict[str, Array]:
        """Every modality decoded from the mean of the posterior given all that is present."""
        return generate(self, tuple(self.modalities), variables["params"], batch, key, code="mean")

    @property
    def _private_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.modalities if name in self.private)

    def _encoder(self, name: str) -> Any:
        outputs = 2 * (self.latent + self.private.get(name, 0))
        return self.modalities[name].encoder_network(outputs, jnp.dtype(self.dtype))

    def _decoder(self, name: str) -> Any:
        return self.modalities[name].decoder_network(jnp.dtype(self.dtype))

    def _decode(self, params: Params, name: str) -> Callable[..., Any]:
        return functools.partial(self._decoder(name).apply, {"params": params["decoders"][name]})

    def _code(self, params: Params, name: str, batch: Batch) -> Gaussian:
        """Shared and private code of one modality side by side; the prior where it is missing."""
        out = self._encoder(name).apply({"params": params["encoders"][name]}, batch.values[name])
        out = jnp.where(batch.present[name][:, None], out.astype(jnp.promote_types(out.dtype, jnp.float32)), 0)
        return Gaussian(*jnp.split(out, 2, axis=-1))

    def _by_name(self, terms: Mapping[str, Array]) -> dict[str, Array]:
        """Terms [M, B] become one metric a modality."""
        named = {}
        for term, value in terms.items():
            if value.ndim == 2:
                named |= {f"{term}/{name}": row for name, row in zip(self.modalities, value, strict=True)}
            else:
                named[term] = value
        return named

    def _known(self, name: str) -> Modality:
        if name not in self.modalities:
            raise ValueError(f"{name!r} is no modality of this model, which has {list(self.modalities)}")
        return self.modalities[name]

    def _given(self, name: str, x: Any, n: int) -> Array:
        """[n, *shape] from one example or n."""
        modality, x = self._known(name), jnp.asarray(x)
        if x.shape not in (modality.shape, (n, *modality.shape)):
            raise ValueError(
                f"given[{name!r}] has shape {x.shape}, but must have {modality.shape} or {(n, *modality.shape)}"
            )
        return jnp.broadcast_to(x, (n, *modality.shape)).astype(modality.dtype)


def decoder_params(
    modality: Modality, network: Any, key: Key, code: jax.ShapeDtypeStruct, x: jax.ShapeDtypeStruct
) -> Params:
    """Parameters of a decoder. Only the modality knows what it calls its decoder with, so it is asked to score x."""
    called_with = []

    def decode(*inputs: Array) -> Array:
        called_with.extend(jax.ShapeDtypeStruct(i.shape, i.dtype) for i in inputs)
        return network.init_with_output(key, *inputs)[0]

    jax.eval_shape(lambda code, x: modality.log_prob(decode, code, x), code, x)
    return network.lazy_init(key, *called_with)["params"]


@functools.partial(jax.jit, static_argnames=("model", "wanted", "code"))
def generate(
    model: VAE, wanted: tuple[str, ...], params: Params, batch: Batch, key: Key, *, code: Literal["draw", "mean"]
) -> dict[str, Array]:
    """The modalities `wanted`, decoded from the posterior given what is present in `batch`.

    One compiled program serves every set of given modalities: what is given is data, not structure.
    """
    batch = batch.masked()
    inference = model.encode(params, batch)
    posterior = model.objective.fusion.conditional(
        params["fusion"], inference.experts, inference.present, tuple(model.modalities)
    )
    noise = Noise.draw(key, dataclasses.replace(inference, joint=posterior))
    if code == "mean":
        noise = jax.tree.map(jnp.zeros_like, noise)
    z, private = posterior.choose(noise.choice).at(noise.z), inference.private_at(noise)
    made = {}
    for name in wanted:
        whole = jnp.concatenate([z, private[name]], axis=-1) if name in private else z
        made[name] = model.modalities[name].generate(model._decode(params, name), whole, None)
    return made
