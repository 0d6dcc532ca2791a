"""From one Gaussian expert per modality to one posterior over the shared code, whatever is missing.

All work on experts [M, B, D] and a mask [M, B], with no loop over examples. An expert that is not present has weight or
precision zero; where none is present the answer is the prior N(0, I).

    product of experts      q(z | X) = prod_m q(z | x_m) / Z, precisions and precision-weighted means add         (1)
    generalised product     q(z | X) = prod_m q(z | x_m)^a_m / Z, learned a_m that add up to one                   (2)
    mixture of experts      q(z | X) = 1/M sum_m q(z | x_m)                                                       (3)
    mixture of products     q(z | X) = 1/S sum_S (1)(S), S over subsets of the modalities                         (4)
    sum pooling             q(z | X) = N(rho(sum_m chi(e_m)))                                                     (5)
    self-attention          q(z | X) = N(pool_m Attention(e_1, ..., e_M))                                         (6)
    joint encoder           q(z | X) = N(network(X))                                                              (7)

Sources: (1) Wu & Goodman 2018 (arXiv:1802.05335); (2) Cao & Fleet 2014 (arXiv:1410.7827); (3) Shi et al. 2019
(arXiv:1911.03393); (4) Sutter et al. 2021 (arXiv:2105.02470); (5), (6) Hirt et al. 2024 (arXiv:2309.00380), built on
Zaheer et al. 2017 (arXiv:1703.06114) and Lee et al. 2019 (arXiv:1810.00825); (7) Suzuki et al. 2016 (arXiv:1611.01891).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.nn.transformer import Block, heads_of
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Key, Modality, Params
from mmgen_jax.vae.latent import Distribution, Gaussian, Mixture


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a posterior is made of: the batch (zero where missing) and what each modality alone says of the code."""

    modalities: Mapping[str, Modality]
    values: Mapping[str, Array]  # [B, *shape]
    present: Array  # bool [M, B]
    experts: Distribution  # [M, B, D]
    dtype: Any = jnp.float32  # what networks compute in

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.modalities)


class Fusion(Protocol):
    """How experts become one posterior."""

    def init(self, key: Key, modalities: Mapping[str, Modality], latent: int) -> Params: ...

    def joint(self, params: Params, evidence: Evidence) -> Mixture:
        """The posterior that training samples from."""
        ...

    def conditional(self, params: Params, evidence: Evidence) -> Mixture:
        """The posterior to generate from when just `evidence.present` is given."""
        ...


def product(experts: Gaussian, used: Array, *, prior: bool | Array = False, eps: float = 0.0) -> Gaussian:
    """Equation (1) for any number of sets of experts at once.

    Args:
        experts: [M, B, D].
        used: bool [..., M, B], the experts in each product.
        prior: whether N(0, I) is one more expert, for all or for each set and example [..., B].
        eps: added to every variance.
    Returns:
        [..., B, D].
    """
    mean, log_var = (x.reshape((1,) * (used.ndim - 2) + x.shape) for x in (experts.mean, experts.log_var))
    # 1 / (exp(log_var) + eps), written so that an expert which says nothing, with log_var above 88, has a gradient.
    precision = used[..., None] * jnp.exp(-jnp.maximum(log_var, 0))
    precision = precision / (jnp.exp(jnp.minimum(log_var, 0)) + eps * jnp.exp(-jnp.maximum(log_var, 0)))
    one = jnp.broadcast_to(jnp.asarray(prior), used.shape[:-2] + used.shape[-1:])[..., None] / (1 + eps)
    total, weighted = precision.sum(-3) + one, (precision * mean).sum(-3)
    # Nothing present: no precision at all. One stands in for it, which makes N(0, I).
    total = jnp.where(total > 0, total, 1)
    return Gaussian(weighted / total, -jnp.log(total))


def uniform(available: Array, dtype: Any) -> Array:
    """Equal weights [S, B] over what is available; over all where nothing is."""
    available = available | ~available.any(axis=0, keepdims=True)
    return available.astype(dtype) / available.sum(axis=0, keepdims=True).astype(dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductOfExperts:
    """Equation (1). `prior`: with N(0, I) as one more expert (MVAE), without (MVTCAE)."""

    prior: bool = False
    eps: float = 1e-8

    def init(self, key: Key, modalities: Mapping[str, Modality], latent: int) -> Params:
        return {}

    def joint(self, params: Params, evidence: Evidence) -> Mixture:
        return Mixture.single(product(evidence.experts, evidence.present, prior=self.prior, eps=self.eps))

    conditional = joint


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneralizedProduct:
    """Equation (2): how much each modality is believed, dimension by dimension; equally before training."""

    def init(self, key: Key, modalities: Mapping[str, Modality], latent: int) -> Params:
        return {"log_weights": jnp.zeros((len(modalities), latent))}

    def joint(self, params: Params, evidence: Evidence) -> Mixture:
        there = evidence.present[..., None]
        scores = jnp.where(there, params["log_weights"][:, None], -jnp.inf)
        weights = jnp.where(there, jax.nn.softmax(jnp.where(there.any(0), scores, 0), axis=0), 0)
        precision = weights * jnp.exp(-evidence.experts.log_var)
        total = jnp.where(there.any(0), precision.sum(0), 1)
        return Mixture.single(Gaussian((precision * evidence.experts.mean).sum(0) / total, -jnp.log(total)))

    conditional = joint


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureOfExperts:
    """Equation (3), for experts of any family."""

    def init(self, key: Key, modalities: Mapping[str, Modality], latent: int) -> Params:
        return {}

    def joint(self, params: Params, evidence: Evidence) -> Mixture:
        return Mixture(evidence.experts, uniform(evidence.present, evidence.experts.mean.dtype))

    conditional = joint


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureOfProducts:
    """Equation (4). `subsets`: of modality names, default all that are not empty, small ones first.

    As in the published code, N(0, I) is an expert of the product over all modalities and of no other.
    """

    subsets: tuple[tuple[str, ...], ...] | None = None
    eps: float = 1e-8

    def init(self, key: Key, modalities: Mapping[str, Modality], latent: int) -> Params:
        return {}

    def joint(self, params: Params, evidence: Evidence) -> Mixture:
        members = membership(self._subsets(evidence.names), evidence.names)
        available = (evidence.present[None] | ~members[..., None]).all(axis=1)  # [S, B]
        full = members.all(axis=1)[:, None] & available
        used = members[..., None] & available[:, None]
        components = product(evidence.experts, used, prior=full, eps=self.eps)
        return Mixture(components, uniform(available, evidence.experts.mean.dtype))

    def conditional(self, params: Params, evidence: Evidence) -> Mixture:
        """The one product over all that is given: of the components of `joint` the best informed."""
        every = evidence.present.all(axis=0)
        return Mixture.single(product(evidence.experts, evidence.present, prior=every, eps=self.eps))

    def _subsets(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        if self.subsets is None:
            return subsets_of(names)
        unknown = {name for subset in self.subsets for name in subset} - set(names)
        if unknown:
            raise ValueError(f"subsets name {sorted(unknown)}, but the modalities are {list(names)}")
        return self.subsets


def subsets_of(names: tuple[str, ...], sizes: range | None = None) -> tuple[tuple[str, ...], ...]:
    """The subsets of these sizes (default: all but the empty one), small ones first."""
    sizes = range(1, len(names) + 1) if sizes is None else sizes
    return tuple(itertools.chain(*(itertools.combinations(names, size) for size in sizes)))


def membership(subsets: tuple[tuple[str, ...], ...], names: tuple[str, ...]) -> Array:
    """bool [S, M]: which modality is in which subset."""
    return jnp.array([[name in subset for name in names] for subset in subsets], bool).reshape(-1, len(names))


class AttentionPool(nn.Module):
    """A set [B, M, F] with a mask [B, M] -> [B, outputs]; the order of the set does not matter."""

    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, members: Array, present: Array) -> Array:
        x = nn.Dense(self.features, dtype=self.dtype)(members)
        x, _cache = Block(heads_of(self.features), dtype=self.dtype)(x, present[:, None, :])
        # The article's pooling: one learned query, weights softmax(x w), a weighted sum over the modalities.
        scores = jnp.where(present, nn.Dense(1, dtype=self.dtype)(x)[..., 0], -1e30)
        weights = jnp.where(present, nn.softmax(scores, axis=-1), 0)
        pooled = jnp.einsum("bm,bmd->bd", weights, nn.RMSNorm(dtype=self.dtype)(x))
        return nn.Dense(self.outputs, dtype=self.dtype, kernel_init=nn.initializers.zeros)(pooled)


class SumPool(nn.Module):
    """The same with a sum over the set: chi and rho of equation (5) are networks of one hidden layer."""

    outputs: int
    features: int

    @nn.compact
    def __call__(self, members: Array, present: Array) -> Array:
        each = nn.gelu(nn.Dense(self.features)(nn.gelu(nn.Dense(self.features)(members))))
        pooled = jnp.where(present[..., None], each, 0).sum(1)
        hidden = nn.gelu(nn.Dense(self.features)(pooled))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(hidden)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooling:
    """Learned aggregation, added to mean and log-variance of the product of experts: before training it is that."""

    features: int = 64
    eps: float = 1e-8

    def init(self, key: Key, modalities: Mapping[str, Modality], latent: int) -> Params:
        experts = jnp.zeros((1, 1, 2 * latent))
        return self._pool(2 * latent).init(key, experts, jnp.ones((1, 1), bool))["params"]

    def joint(self, params: Params, evidence: Evidence) -> Mixture:
        experts, there = evidence.experts, evidence.present[..., None]
        tokens = jnp.concatenate([jnp.where(there, experts.mean, 0), jnp.where(there, experts.log_var, 0)], axis=-1)
        pool = self._pool(tokens.shape[-1])
        pooled = pool.apply({"params": params}, tokens.swapaxes(0, 1), evidence.present.T)
        mean, log_var = jnp.split(jnp.where(there.any(axis=0), pooled, 0), 2, axis=-1)
        start = product(experts, evidence.present, eps=self.eps)
        return Mixture.single(Gaussian(start.mean + mean, start.log_var + log_var))

    conditional = joint

    def _pool(self, outputs: int) -> nn.Module:
        raise NotImplementedError


class SumPooling(Pooling):
    """Equation (5)."""

    def _pool(self, outputs: int) -> nn.Module:
        return SumPool(outputs, self.features)


class SelfAttention(Pooling):
    """Equation (6)."""

    def _pool(self, outputs: int) -> nn.Module:
        return AttentionPool(outputs, self.features)


class JointNetwork(nn.Module):
    """Default of equation (7): one more encoder per modality, and attention over those present -> [B, outputs]."""

    modalities: Mapping[str, Modality]
    outputs: int
    features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.encoders = {name: m.encoder_network(self.features, self.dtype) for name, m in self.modalities.items()}
        self.pool = AttentionPool(self.outputs, self.features, self.dtype)

    def __call__(self, values: Mapping[str, Array], present: Array) -> Array:
        tokens = [self.encoders[name](values[name]) for name in self.modalities]
        return self.pool(jnp.stack(tokens, axis=1), present.T)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointEncoder:
    """Equation (7): a network of its own that sees all modalities at once, besides the experts.

    network: a `flax.linen` module, called with the values {name: [B, *shape]} (zero where missing) and what is present
        [M, B], that returns mean and log-variance [B, 2 D]; default: encoders of its own and masked attention.
    features: width of the default network.

    Raises ValueError in `init` if the network returns another number of values.
    """

    network: Any = None
    features: int = 128

    def init(self, key: Key, modalities: Mapping[str, Modality], latent: int) -> Params:
        values = {name: jnp.zeros((1, *m.shape), m.dtype) for name, m in modalities.items()}
        present = jnp.ones((len(modalities), 1), bool)
        network, key = self._network(modalities, latent, jnp.float32), fold_name(key, "joint")
        outputs = jax.eval_shape(network.init_with_output, key, values, present)[0].shape[-1]
        if outputs != 2 * latent:
            raise ValueError(f"network returns {outputs} values, but a code of {latent} needs {2 * latent}")
        return network.lazy_init(key, values, present)["params"]

    def joint(self, params: Params, evidence: Evidence) -> Mixture:
        network = self._network(evidence.modalities, evidence.experts.mean.shape[-1], evidence.dtype)
        out = network.apply({"params": params}, evidence.values, evidence.present)
        out = jnp.where(evidence.present.any(0)[:, None], out.astype(evidence.experts.mean.dtype), 0)
        return Mixture.single(Gaussian(*jnp.split(out, 2, axis=-1)))

    def conditional(self, params: Params, evidence: Evidence) -> Mixture:
        """The joint posterior where everything is given, else the product of the experts."""
        every = evidence.present.all(axis=0)[:, None]
        apart = product(evidence.experts, evidence.present)
        together = jax.tree.map(lambda x: x[0], self.joint(params, evidence).components)
        return Mixture.single(jax.tree.map(lambda a, b: jnp.where(every, a, b), together, apart))

    def _network(self, modalities: Mapping[str, Modality], latent: int, dtype: Any) -> Any:
        return JointNetwork(modalities, 2 * latent, self.features, dtype) if self.network is None else self.network
