"""From one Gaussian expert per modality to one posterior over the shared code, whatever is missing.

All work on experts [M, B, D] and a mask [M, B], with no loop over examples. An expert that is not present has weight or
precision zero; where none is present the answer is the prior N(0, I).

    product of experts    q(z | X) = prod_m q(z | x_m) / Z, precisions and precision-weighted means add     (1)
    mixture of experts    q(z | X) = 1/M sum_m q(z | x_m)                                                   (2)
    mixture of products   q(z | X) = 1/S sum_S (1)(S), S over subsets of the modalities                     (3)
    self-attention        q(z | X) = N(pool_m Attention(e_1, ..., e_M))                                     (4)

Sources: (1) Wu & Goodman 2018 (arXiv:1802.05335); (2) Shi et al. 2019 (arXiv:1911.03393); (3) Sutter et al. 2021
(arXiv:2105.02470); (4) Hirt et al. 2024 (arXiv:2309.00380), built on Lee et al. 2019 (arXiv:1810.00825).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp

from mmgen_jax.nn.transformer import Block, heads_of
from mmgen_jax.types import Array, Key, Params
from mmgen_jax.vae.latent import Gaussian, Mixture


class Fusion(Protocol):
    """How experts become one posterior. `names` are the modalities in the order of the experts."""

    def init(self, key: Key, latent: int) -> Params: ...

    def joint(self, params: Params, experts: Gaussian, present: Array, names: tuple[str, ...]) -> Mixture:
        """The posterior that training samples from."""
        ...

    def conditional(self, params: Params, experts: Gaussian, present: Array, names: tuple[str, ...]) -> Mixture:
        """The posterior to generate from when just `present` is given."""
        ...


def product(experts: Gaussian, present: Array, *, prior: bool = False, eps: float = 0.0) -> Gaussian:
    """Equation (1) over the first axis. `prior`: N(0, I) is one more expert. `eps` is added to every variance."""
    precision = present[..., None] / (jnp.exp(experts.log_var) + eps)
    total, weighted = precision.sum(0), (precision * experts.mean).sum(0)
    if prior:
        total = total + 1 / (1 + eps)
    # Nothing present: no precision at all. One stands in for it, which makes N(0, I).
    total = jnp.where(total > 0, total, 1)
    return Gaussian(weighted / total, -jnp.log(total))


def single(q: Gaussian) -> Mixture:
    """A mixture of one."""
    return Mixture(Gaussian(q.mean[None], q.log_var[None]), jnp.ones_like(q.mean[None, :, 0]))


def uniform(available: Array, dtype: Any) -> Array:
    """Equal weights [S, B] over what is available; over all where nothing is."""
    available = available | ~available.any(axis=0, keepdims=True)
    return available.astype(dtype) / available.sum(axis=0, keepdims=True).astype(dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductOfExperts:
    """Equation (1). `prior`: with N(0, I) as one more expert (MVAE), without (MVTCAE)."""

    prior: bool = False
    eps: float = 1e-8

    def init(self, key: Key, latent: int) -> Params:
        return {}

    def joint(self, params: Params, experts: Gaussian, present: Array, names: tuple[str, ...]) -> Mixture:
        return single(product(experts, present, prior=self.prior, eps=self.eps))

    conditional = joint


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureOfExperts:
    """Equation (2)."""

    def init(self, key: Key, latent: int) -> Params:
        return {}

    def joint(self, params: Params, experts: Gaussian, present: Array, names: tuple[str, ...]) -> Mixture:
        there, prior = present[..., None], Gaussian.standard(experts.mean)
        components = Gaussian(
            jnp.where(there, experts.mean, prior.mean), jnp.where(there, experts.log_var, prior.log_var)
        )
        return Mixture(components, uniform(present, experts.mean.dtype))

    conditional = joint


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureOfProducts:
    """Equation (3). `subsets`: of modality names, default all that are not empty, small ones first.

    As in the published code, N(0, I) is an expert of the product over all modalities and of no other.
    """

    subsets: tuple[tuple[str, ...], ...] | None = None
    eps: float = 1e-8

    def init(self, key: Key, latent: int) -> Params:
        return {}

    def joint(self, params: Params, experts: Gaussian, present: Array, names: tuple[str, ...]) -> Mixture:
        members = jnp.array([[name in subset for name in names] for subset in self._subsets(names)])  # [S, M]
        available = (present[None] | ~members[..., None]).all(axis=1)  # [S, B]
        # [S, M, B]: one masked product for every subset at once.
        used = members[..., None] & available[:, None]
        precision = used[..., None] / (jnp.exp(experts.log_var) + self.eps)[None]
        full = members.all(axis=1)[:, None, None] & available[..., None]
        total = precision.sum(1) + full / (1 + self.eps)
        total = jnp.where(total > 0, total, 1)
        components = Gaussian((precision * experts.mean[None]).sum(1) / total, -jnp.log(total))
        return Mixture(components, uniform(available, experts.mean.dtype))

    def conditional(self, params: Params, experts: Gaussian, present: Array, names: tuple[str, ...]) -> Mixture:
        """The one product over all that is given: of the components of `joint` the best informed."""
        without = product(experts, present, eps=self.eps)
        within = product(experts, present, prior=True, eps=self.eps)
        every = present.all(axis=0)[:, None]
        return single(
            Gaussian(jnp.where(every, within.mean, without.mean), jnp.where(every, within.log_var, without.log_var))
        )

    def _subsets(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        if self.subsets is None:
            sizes = range(1, len(names) + 1)
            return tuple(itertools.chain(*(itertools.combinations(names, size) for size in sizes)))
        unknown = {name for subset in self.subsets for name in subset} - set(names)
        if unknown:
            raise ValueError(f"subsets name {sorted(unknown)}, but the modalities are {list(names)}")
        return self.subsets


class AttentionPool(nn.Module):
    """Experts as a set [B, M, 2D] with a mask [B, M] -> [B, 2D]; the order of the set does not matter."""

    latent: int
    features: int

    @nn.compact
    def __call__(self, experts: Array, present: Array) -> Array:
        x = nn.Dense(self.features)(experts)
        x, _cache = Block(heads_of(self.features))(x, present[:, None, :])
        # The article's pooling: one learned query, weights softmax(x w), a weighted sum over the modalities.
        scores = jnp.where(present, nn.Dense(1)(x)[..., 0], -1e30)
        weights = jnp.where(present, nn.softmax(scores, axis=-1), 0)
        pooled = jnp.einsum("bm,bmd->bd", weights, nn.RMSNorm()(x))
        return nn.Dense(2 * self.latent, kernel_init=nn.initializers.zeros)(pooled)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfAttention:
    """Equation (4), added to mean and log-variance of the product of experts, which it equals before training."""

    features: int = 64
    eps: float = 1e-8

    def init(self, key: Key, latent: int) -> Params:
        experts = jnp.zeros((1, 1, 2 * latent))
        return AttentionPool(latent, self.features).init(key, experts, jnp.ones((1, 1), bool))["params"]

    def joint(self, params: Params, experts: Gaussian, present: Array, names: tuple[str, ...]) -> Mixture:
        latent = experts.mean.shape[-1]
        there = present[..., None]
        tokens = jnp.concatenate([jnp.where(there, experts.mean, 0), jnp.where(there, experts.log_var, 0)], axis=-1)
        pool = AttentionPool(latent, self.features)
        pooled = pool.apply({"params": params}, tokens.swapaxes(0, 1), present.T)
        mean, log_var = jnp.split(jnp.where(present.any(axis=0)[:, None], pooled, 0), 2, axis=-1)
        start = product(experts, present, eps=self.eps)
        return single(Gaussian(start.mean + mean, start.log_var + log_var))

    conditional = joint
