"""Nexus: a code for each modality, and a joint code above them (Vasco et al., Neural Networks 2022; arXiv:2006.02991).

Every modality m has a small VAE of its own, with the code z_m. The joint level does not see data but these codes: each
is made into a message, the mean of the messages into the joint code z, and z predicts every z_m.

    bottom     sum_m [-log p(x_m | z_m) + beta_m KL(q(z_m | x_m) || N(0, I))],        z_m ~ q(z_m | x_m)        (1)
    top        sum_m -gamma_m log N(c_m; f_m(z), s_m^2) + beta KL(q(z | c) || N(0, I)),    z ~ q(z | c)         (2)
               q(z | c) = N(network(mean_m g_m(c_m))),     c_m = z_m as a constant to the gradient              (3)
    scale      s_m = 1, or the optimum over the batch, s_m^2 = mean of (c_m - f_m(z))^2                         (4)

The loss is (1) + (2). The mean of (3) is over the messages that are there, and in training some are dropped, so that
the joint code learns to do with few: this is how one modality is made from another. (4) is the sigma-VAE (Rybkin et al.
2021, arXiv:2006.13202).

    joint generation        z ~ N(0, I),        z_m = f_m(z),                                x_m ~ p(x_m | z_m)
    given some of them      z ~ q(z | given),   z_m = f_m(z), but q(z_m | x_m) where m is given, the same

Generation takes the mean of p(z_m | z), as it does of p(x_m | z_m). The likelihood is that of the whole hierarchy (5),
and is estimated by the chain of encoders, q(z | z_1 ... z_M) prod_m q(z_m | x_m), both over the modalities that are
there. With (4) there is none: s_m is then fitted to the batch at hand, and no part of the model.

    likelihood              p(z) prod_m N(z_m; f_m(z), 1) p(x_m | z_m)                                          (5)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Params, Stats, Variables
from mmgen_jax.vae.blocks import apply, check_block, check_sizes, fresh, headed
from mmgen_jax.vae.joint import Code, JointModel
from mmgen_jax.vae.latent import Gaussian
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.schedules import Schedule, at


@flax.struct.dataclass
class Noise:
    """Every random number of one loss."""

    z: Array  # standard normal [B, latent], of the joint code
    bottom: dict[str, Array]  # standard normal [B, D_m], of the code of each modality
    drop: Array  # uniform in [0, 1), [M, B]: a message is dropped where it is less than the rate

    @classmethod
    def draw(cls, key: Key, codes: Mapping[str, Gaussian], latent: int) -> Noise:
        """For these posteriors [B, D_m] of the bottom codes."""
        like = next(iter(codes.values())).mean
        normal = {
            name: q.noise(fold_name(key, f"bottom/{name}"), q.mean.shape, like.dtype) for name, q in codes.items()
        }
        z = Gaussian.noise(fold_name(key, "joint"), (len(like), latent), like.dtype)
        return cls(z, normal, jax.random.uniform(fold_name(key, "drop"), (len(codes), len(like)), like.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nexus(JointModel):
    """The model of this module's equations, with the fields of `JointModel` and these.

    Attributes:
      latent: dimensions of the joint code z.
      private: dimensions of the bottom codes z_m, by modality; `latent` where none is given.
      message: numbers in a message.
      betas: beta_m of (1), by modality, 1 where none is given; a `Ramp` from 0 for KL warm-up.
      top_beta: beta of (2); the same.
      gammas: gamma_m of (2), by modality, 1 where none is given.
      dropout: how often a message is dropped in training. One of those there is always kept. At 1/2 all sets of
        messages are about as frequent.
      adapt: the modalities whose s_m is the optimum of (4). It couples the examples of a batch, and leaves no
        likelihood to estimate.
      features: width of the hidden layer of the default networks f, g and that of (3).
      block: your own linen module, [B, .] -> [B, .], in place of that layer; each network has parameters of its own for
        it, and ends in a linear layer.

    Raises:
      ValueError: a mapping or `adapt` names no modality, a size or factor is not positive, `dropout` is no probability,
        or `block` is no module.
    """

    latent: int = 32
    private: Mapping[str, int] = FrozenDict()
    message: int = 32
    betas: Mapping[str, Schedule] = FrozenDict()
    top_beta: Schedule = 1.0
    gammas: Mapping[str, Schedule] = FrozenDict()
    dropout: float = 0.5
    adapt: tuple[str, ...] = ()
    features: int = 256
    block: nn.Module | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("private", "betas", "gammas"):
            self._check_by_name(field, getattr(self, field))
        check_sizes(latent=self.latent, message=self.message, features=self.features)
        check_sizes(**{f"private[{name!r}]": size for name, size in self.private.items()})
        check_block(self.block)
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout is {self.dropout}, but must be between 0 and 1")
        self._check_by_name("adapt", dict.fromkeys(self.adapt, 1))

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters, and no statistics."""

        def network(place: str, inputs: int, outputs: int) -> Params:
            return fresh(self._network(outputs), fold_name(key, place), inputs)

        sizes = {name: self.code_size(name) for name in self.modalities}
        return {
            "encoders": {name: self.encoder_params(name, key, 2 * size) for name, size in sizes.items()},
            "decoders": {name: self.decoder_params(name, key, size) for name, size in sizes.items()},
            "messages": {name: network(f"message/{name}", size, self.message) for name, size in sizes.items()},
            "joint": network("joint", self.message, 2 * self.latent),
            "predictions": {name: network(f"prediction/{name}", self.latent, size) for name, size in sizes.items()},
        }, {}

    def encode(self, params: Params, batch: Batch) -> dict[str, Gaussian]:
        """q(z_m | x_m), [B, D_m], by modality, of a batch that is `masked()`; N(0, I) where m is missing."""

        def code(name: str) -> Gaussian:
            out = self.encoder(params, name, batch.values[name], 2 * self.code_size(name))
            return Gaussian(*jnp.split(jnp.where(batch.present[name][:, None], out, 0), 2, axis=-1))

        return {name: code(name) for name in self.modalities}

    def gathered(self, params: Params, codes: Mapping[str, Array], used: Array) -> Array:
        """The mean [B, message] of the messages of codes [B, D_m] that are `used` [M, B]; zero where none is."""
        network = self._network(self.message)
        messages = jnp.stack([apply(network, params["messages"][name], codes[name]) for name in self.modalities])
        return jnp.where(used[..., None], messages, 0).sum(0) / jnp.maximum(used.sum(0), 1)[:, None]

    def joint(self, params: Params, codes: Mapping[str, Array], used: Array) -> Gaussian:
        """Equation (3), [B, latent]; N(0, I) where nothing is used."""
        out = apply(self._network(2 * self.latent), params["joint"], self.gathered(params, codes, used))
        return Gaussian(*jnp.split(jnp.where(used.any(0)[:, None], out, 0), 2, axis=-1))

    def prediction(self, params: Params, name: str, z: Array, code: Array, present: Array) -> Gaussian:
        """N(f_m(z), s_m^2), [B, D_m]; equation (4) takes the codes [B, D_m] of the examples where m is present [B]."""
        mean = apply(self._network(self.code_size(name)), params["predictions"][name], z)
        if name not in self.adapt:
            return Gaussian(mean, jnp.zeros_like(mean))
        square = jnp.where(present[:, None], jnp.square(code - mean), 0).sum() / code.shape[-1]
        there = present.sum()
        optimum = jnp.where(there > 0, square / jnp.maximum(there, 1), 1)
        return Gaussian(mean, jnp.broadcast_to(jnp.log(optimum), mean.shape))

    def kept(self, present: Array, drop: Array) -> Array:
        """The messages [M, B] that are not dropped, of those present: the most reluctant one never is."""
        reluctance = jnp.where(present, drop, -1)
        return present & ((reluctance >= self.dropout) | (reluctance == reluctance.max(0, keepdims=True)))

    def loss(self, params: Params, batch: Batch, noise: Noise | Key, step: Array) -> tuple[Array, Mapping[str, Array]]:
        """The objective [B] of a batch that is `masked()`, and its unweighted terms by name, [B] or [M, B] each."""
        codes, present = self.encode(params, batch), self._present(batch)
        if not isinstance(noise, Noise):
            noise = Noise.draw(noise, codes, self.latent)
        bottom = {name: q.at(noise.bottom[name]) for name, q in codes.items()}
        constant = jax.lax.stop_gradient(bottom)
        joint = self.joint(params, constant, self.kept(present, noise.drop))
        z = joint.at(noise.z)
        predictions = [
            self.prediction(params, name, z, constant[name], batch.present[name]).log_prob(constant[name])
            for name in self.modalities
        ]
        networks = Networks(self, params, batch, self.weights_at(step))
        terms = {
            "nll": -networks.own(tuple(bottom.values()), {}),
            "kl": jnp.stack([q.kl() for q in codes.values()]),
            "nll_top": jnp.where(present, -jnp.stack(predictions), 0),
            "kl_top": joint.kl(),
        }
        weighted = self._weighted(self.betas, terms["kl"], step) + self._weighted(self.gammas, terms["nll_top"], step)
        top = at(self.top_beta, step) * terms["kl_top"]
        return networks.weighted(terms["nll"]) + weighted + top, terms

    def log_weight(self, params: Params, batch: Batch) -> Callable[[Key, Array], Array]:
        """Of (5). Raises ValueError with `adapt`."""
        if self.adapt:
            raise ValueError(f"adapt is {self.adapt}, but a likelihood needs scales that are not fitted to each batch")
        codes, present = self.encode(params, batch), self._present(batch)
        networks = Networks(self, params, batch, self.weights_at(jnp.zeros(())))

        def log_weight(key: Key, quantile: Array) -> Array:
            noise = Noise.draw(key, codes, self.latent)
            bottom = {name: q.at(noise.bottom[name]) for name, q in codes.items()}
            joint = self.joint(params, bottom, present)
            z = joint.at(noise.z)
            ratios = [
                self.prediction(params, name, z, code, batch.present[name]).log_prob(code) - codes[name].log_prob(code)
                for name, code in bottom.items()
            ]
            each = networks.own(tuple(bottom.values()), {}) + jnp.where(present, jnp.stack(ratios), 0)
            return each.sum(0) + Gaussian.standard(z).log_prob(z) - joint.log_prob(z)

        return log_weight

    def decoded(self, params: Params, batch: Batch, key: Key, wanted: tuple[str, ...], code: Code) -> dict[str, Array]:
        def draw(name: str, q: Gaussian) -> Array:
            return q.mean if code == "mean" else q.at(q.noise(fold_name(key, name), q.mean.shape, q.mean.dtype))

        bottom = {name: draw(f"bottom/{name}", q) for name, q in self.encode(params, batch).items()}
        z = draw("joint", self.joint(params, bottom, self._present(batch)))
        made = {}
        for name in wanted:
            there = batch.present[name]
            predicted = self.prediction(params, name, z, bottom[name], there).mean
            whole = jnp.where(there[:, None], bottom[name], predicted)
            made[name] = self.modalities[name].generate(self.decoder(params, name), whole, None)
        return made

    def code_size(self, name: str) -> int:
        """The numbers of z_m."""
        return self.private.get(name, self.latent)

    def to_code(self, variables: Variables, name: str, x: Array) -> tuple[Array, Array]:
        """Mean and deviation of q(z_m | x_m), [B, D_m] each, of x [B, *shape]."""
        q = self.encode(variables["params"], self.alone(name, x))[name]
        return q.mean, jnp.sqrt(q.variance)

    def _network(self, outputs: int) -> nn.Module:
        return headed(self.block, self.features, outputs, self.dtype)

    def _present(self, batch: Batch) -> Array:
        return jnp.stack([batch.present[name] for name in self.modalities])

    def _weighted(self, factors: Mapping[str, Schedule], terms: Array, step: Array) -> Array:
        """Terms [M, B] summed over the modalities, each with its factor at a step."""
        each = jnp.stack([at(factors.get(name, 1.0), step) for name in self.modalities])
        return jnp.tensordot(each.astype(terms.dtype), terms, axes=1)
