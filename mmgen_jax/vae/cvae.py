"""The conditional VAE: one modality y given all others x (Sohn, Lee & Yan, NeurIPS 2015; arXiv:1906.02691).

    c            = features of what is there of x                                                             (1)
    loss         = -log p(y | z, c) + beta KL(q(z | y, x) || p(z | c)),    z ~ q(z | y, x)                    (2)
    generation     z ~ p(z | c),    y ~ p(y | z, c)                                                           (3)
    log p(y | x) ~ log 1/K sum_k W_k,    W_k = p(y | z_k, c) p(z_k | c) / q(z_k | y, x),    z_k ~ q           (4)

Of x nothing is modelled, so nothing of it can be made; in return the code need not hold what x says anyway. Parts of x
may be missing in any example, in training and in generation: c is made of the others, and a learned vector if none is
there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmgen_jax.nn.mlp import MLP
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Params, Stats
from mmgen_jax.vae.fusion import JointNetwork
from mmgen_jax.vae.joint import Code, JointModel
from mmgen_jax.vae.latent import Gaussian
from mmgen_jax.vae.schedules import Schedule, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class CVAE(JointModel):
    """A model of the modality `target` given all others, with the fields of `JointModel` and these.

    The networks are `flax.linen` modules. Those that see modalities are called with their values {name: [B, *shape]}
    (zero where missing) and what is present, bool [number of them, B]; by default they are the modalities' own encoders
    and masked attention. The decoder is the target's own, called with [z, c], [B, latent + F].

    Attributes:
      target: what is made, by name. All other modalities are conditions.
      latent: dimensions of the code z.
      beta: factor on the KL term; a `Ramp` for KL warm-up.
      free_bits: nats that each number of a code may cost for nothing (Kingma et al. 2016, arXiv:1606.04934).
      learn_prior: whether p(z | c) is learned, or N(0, I).
      features: width of the default networks, and F of the default c.
      encoder_network: q(z | y, x): all modalities -> mean and log-variance [B, 2 latent].
      condition_network: c: the conditions -> [B, F] for any F.
      prior_network: p(z | c): c [B, F] -> mean and log-variance [B, 2 latent].

    Raises:
      ValueError: the target is no modality or the only one, a size or `free_bits` makes no sense, a weight is not that
        of the target, or there is a prior network that is not to be learned.
    """

    target: str
    latent: int = 32
    beta: Schedule = 1.0
    free_bits: float = 0.0
    learn_prior: bool = True
    features: int = 128
    encoder_network: Any = None
    condition_network: Any = None
    prior_network: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target not in self.modalities or len(self.modalities) < 2:
            raise ValueError(f"target is {self.target!r}, but must be one of two or more: of {list(self.modalities)}")
        for field in ("latent", "features"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}, but must be at least 1")
        if self.free_bits < 0:
            raise ValueError(f"free_bits is {self.free_bits}, but must not be negative")
        for name in self.weights:
            if name != self.target:
                raise ValueError(f"weights names {name!r}, but the target {self.target!r} alone has a likelihood")
        if self.prior_network is not None and not self.learn_prior:
            raise ValueError("prior_network is given, but learn_prior=False makes the prior N(0, I): choose one")

    @property
    def makes(self) -> tuple[str, ...]:
        return (self.target,)

    @property
    def conditions(self) -> tuple[str, ...]:
        """All modalities but the target."""
        return tuple(name for name in self.modalities if name != self.target)

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters, and no statistics."""
        values = {name: jnp.zeros((1, *m.shape), m.dtype) for name, m in self.modalities.items()}
        one = Batch(values, {name: jnp.ones(1, bool) for name in self.modalities})
        whole, given = seen(one, tuple(self.modalities)), seen(one, self.conditions)
        encoder, condition, prior = self._networks
        conditional = fresh(condition, fold_name(key, "condition"), *given)
        c = jax.eval_shape(functools.partial(applied, condition), conditional, *given)
        return {
            "encoder": fresh(encoder, fold_name(key, "encoder"), *whole),
            "condition": conditional,
            "prior": fresh(prior, fold_name(key, "prior"), c) if self.learn_prior else {},
            "decoders": {self.target: self.decoder_params(self.target, key, self.latent + c.shape[-1])},
        }, {}

    def encode(self, params: Params, batch: Batch) -> tuple[Gaussian, Gaussian, Array]:
        """q(z | y, x) and p(z | c), both [B, D], and c [B, F], of a batch that is `masked()`."""
        encoder, condition, prior = self._networks
        q = gaussian(applied(encoder, params["encoder"], *seen(batch, tuple(self.modalities))))
        c = applied(condition, params["condition"], *seen(batch, self.conditions))
        p = gaussian(applied(prior, params["prior"], c)) if self.learn_prior else Gaussian.standard(q.mean)
        return q, p, c

    def loss(self, params: Params, batch: Batch, noise: Array | Key, step: Array) -> tuple[Array, Mapping[str, Array]]:
        """Equation (2), [B], zero where the target is missing, and its terms; `noise` is a key or normal [B, D]."""
        q, p, c = self.encode(params, batch)
        if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            noise = q.noise(noise, q.mean.shape, q.mean.dtype)
        nll = -self._log_prob(params, batch, q.at(noise), c)
        kl = q.kl(p, free_bits=self.free_bits)
        nll, kl = (jnp.where(batch.present[self.target], term, 0) for term in (nll, kl))
        weight = at(self.weights.get(self.target, 1.0), step)
        return weight * nll + at(self.beta, step) * kl, {"nll": nll, "kl": kl}

    def decoded(self, params: Params, batch: Batch, key: Key, wanted: tuple[str, ...], code: Code) -> dict[str, Array]:
        """The target where it is wanted: by equation (3), or from q where it is present itself."""
        if self.target not in wanted:
            return {}
        q, p, c = self.encode(params, batch)
        known = jax.tree.map(functools.partial(jnp.where, batch.present[self.target][:, None]), q, p)
        z = known.mean if code == "mean" else known.at(q.noise(key, q.mean.shape, q.mean.dtype))
        whole, decode = jnp.concatenate([z, c], axis=-1), self.decoder(params, self.target)
        return {self.target: self.modalities[self.target].generate(decode, whole, None)}

    def log_weight(self, params: Params, batch: Batch) -> Callable[[Key, Array], Array]:
        """Of equation (4)."""
        q, p, c = self.encode(params, batch)

        def log_weight(key: Key, quantile: Array) -> Array:
            z = q.at(q.noise(key, q.mean.shape, q.mean.dtype))
            return self._log_prob(params, batch, z, c) + p.log_prob(z) - q.log_prob(z)

        return log_weight

    def _log_prob(self, params: Params, batch: Batch, z: Array, c: Array) -> Array:
        """log p(y | z, c) in nats, [B]."""
        whole, decode = jnp.concatenate([z, c], axis=-1), self.decoder(params, self.target)
        return self.modalities[self.target].log_prob(decode, whole, batch.values[self.target])

    @property
    def _networks(self) -> tuple[Any, Any, Any]:
        """Those of q(z | y, x), of c and of p(z | c)."""
        conditions, dtype = {name: self.modalities[name] for name in self.conditions}, jnp.dtype(self.dtype)
        return (
            self.encoder_network or JointNetwork(self.modalities, 2 * self.latent, self.features, dtype),
            self.condition_network or JointNetwork(conditions, self.features, self.features, dtype),
            self.prior_network or MLP(2 * self.latent, (self.features,), dtype),
        )


def seen(batch: Batch, names: tuple[str, ...]) -> tuple[dict[str, Array], Array]:
    """What a network that sees modalities is called with."""
    return {name: batch.values[name] for name in names}, jnp.stack([batch.present[name] for name in names])


def fresh(network: Any, key: Key, *inputs: Any) -> Params:
    """Parameters of a network, {} where it has none."""
    return network.lazy_init(key, *inputs).get("params", {})


def gaussian(out: Array) -> Gaussian:
    return Gaussian(*jnp.split(out, 2, axis=-1))


def applied(network: Any, params: Params, *inputs: Any) -> Array:
    """What a network says, float32 or better."""
    out = network.apply({"params": params}, *inputs)
    return out.astype(jnp.promote_types(out.dtype, jnp.float32))
