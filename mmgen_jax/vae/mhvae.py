"""MHVAE: a hierarchy of codes, each level a product of experts (Dorent et al., MICCAI 2023, arXiv:2309.08747).

The codes z_1 ... z_L all modalities share; z_L is the most abstract, and every modality is decoded from z_1. From x_m
come features d_1 ... d_{L-1}, each made of the one before; h_l is made of z_{l+1}.

    prior        p(z) = N(z_L; 0, I) prod_{l<L} p(z_l | h_l)                                                    (1)
    posterior    q(z_L | S) = N(0, I) prod_{m in S} q(z_L | d_{L-1} of m) / Z                                   (2)
                 q(z_l | h_l, S) = p(z_l | h_l) prod_{m in S} q(z_l | h_l, d_l of m) / Z                        (3)
    loss         1/(2^M - 1) sum_S [-sum_m log p(x_m | z_1) + beta sum_l KL(q_l || p_l)],   z ~ q(z | S)        (4)

S runs over all sets of modalities but the empty one, and the likelihood in (4) is over everything that is present, in S
or not: this is how one modality is made from another. With nothing given the products are the prior alone, so one way
down the hierarchy serves training, joint and conditional generation. The sets are rows of one larger batch, which
doubles with every modality.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Params, Stats, Variables
from mmgen_jax.vae.blocks import apply, check_block, check_sizes, fresh, headed, hidden
from mmgen_jax.vae.fusion import membership, product, subsets_of
from mmgen_jax.vae.joint import Code, JointModel
from mmgen_jax.vae.latent import Gaussian
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.schedules import Schedule, at


@flax.struct.dataclass
class Noise:
    """Every random number of one loss, S sets in the order of `subsets_of`."""

    z: tuple[Array, ...]  # standard normal [S, B, D_l], of z_1 ... z_L


@flax.struct.dataclass
class Seen:
    """What the encoders say of N examples, M modalities in the model's order."""

    features: tuple[Array, ...]  # [M, N, F], d_1 ... d_{L-1}
    experts: Gaussian  # [M, N, D_L], of the most abstract code


@flax.struct.dataclass
class Hierarchy:
    """The posteriors, priors and codes of z_1 ... z_L, [..., D_l] each."""

    q: tuple[Gaussian, ...]
    p: tuple[Gaussian, ...]
    z: tuple[Array, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MHVAE(JointModel):
    """The model of this module's equations, with the fields of `JointModel` and these.

    Attributes:
      levels: dimensions of z_1 ... z_L. With a single level it is a VAE whose loss is a mean over sets.
      beta: of (4); a `Ramp` from 0 for KL warm-up.
      shared_posterior: whether the experts of (3) are the same network for every modality.
      eps: added to every variance in (2) and (3).
      features: width of everything between codes: of d_l, h_l and of the hidden layers.
      block: your own linen module, [B, .] -> [B, features], in place of the SiLU layer from which all networks here are
        made; each has parameters of its own for it.

    Raises:
      ValueError: a weight names no modality, there is no level, a size is not positive, `eps` is negative, or `block`
        is no module or (in `init`) returns another number of features.
    """

    levels: tuple[int, ...] = (32, 16, 8)
    beta: Schedule = 1.0
    shared_posterior: bool = False
    eps: float = 1e-8
    features: int = 256
    block: nn.Module | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels:
            raise ValueError("levels is empty, but a hierarchy needs at least one")
        check_sizes(features=self.features, **{f"levels[{i}]": size for i, size in enumerate(self.levels)})
        check_block(self.block)
        if self.eps < 0:
            raise ValueError(f"eps is {self.eps}, but must not be negative")

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters, and no statistics."""
        width = jax.eval_shape(self._block.init_with_output, key, jnp.zeros((1, self.features)))[0].shape[-1]
        if width != self.features:
            raise ValueError(f"block returns {width} features, but features is {self.features}")

        def network(place: str, inputs: int, size: int | None = None) -> Params:
            return fresh(self._block if size is None else self._gaussian(size), fold_name(key, place), inputs)

        f, names, down = self.features, tuple(self.modalities), range(1, len(self.levels))
        experts = ("all",) if self.shared_posterior else names
        return {
            "encoders": {name: self.encoder_params(name, key, f) for name in names},
            "decoders": {name: self.decoder_params(name, key, self.levels[0]) for name in names},
            "bottom_up": {n: {f"level_{i}": network(f"bottom_up/{n}/{i}", f) for i in down[1:]} for n in names},
            "top": {name: network(f"top/{name}", f, self.levels[-1]) for name in names},
            "top_down": {f"level_{i}": network(f"top_down/{i}", self.levels[i]) for i in down},
            "prior": {f"level_{i}": network(f"prior/{i}", f, self.levels[i - 1]) for i in down},
            "posterior": {
                n: {f"level_{i}": network(f"posterior/{n}/{i}", 2 * f, self.levels[i - 1]) for i in down}
                for n in experts
            },
        }, {}

    def encode(self, params: Params, batch: Batch) -> Seen:
        """The way up, for a batch that is `masked()`."""

        def climb(name: str) -> tuple[list[Array], Gaussian]:
            d = [self.encoder(params, name, batch.values[name], self.features)]
            for level in range(2, len(self.levels)):
                d.append(apply(self._block, params["bottom_up"][name][f"level_{level}"], d[-1]))
            return d[: len(self.levels) - 1], self._say(params["top"][name], d[-1], self.levels[-1])

        seen = [climb(name) for name in self.modalities]
        features, experts = jax.tree.map(lambda *x: jnp.stack(x), *seen)
        return Seen(tuple(features), experts)

    def infer(self, params: Params, seen: Seen, used: Array, noise: tuple[Array, ...]) -> Hierarchy:
        """Equations (1) to (3): the way down for N examples, with the experts that are `used` [M, N].

        The noise [N, D_l] of z_1 ... z_L is standard normal; zeros lead to the means.
        """
        levels: list[tuple[Gaussian, Gaussian, Array]] = []
        for level in range(len(self.levels), 0, -1):
            if not levels:
                experts = seen.experts
                prior = Gaussian.standard(experts.mean[0])
            else:
                above = levels[-1][-1]
                h = apply(self._block, params["top_down"][f"level_{level}"], above)
                prior = self._say(params["prior"][f"level_{level}"], h, self.levels[level - 1])
                experts = self._experts(params["posterior"], level, h, seen.features[level - 1])
            everyone = jax.tree.map(lambda x, p: jnp.concatenate([x, p[None]]), experts, prior)
            always = jnp.ones_like(used[:1])
            posterior = product(everyone, jnp.concatenate([used, always]), eps=self.eps)
            levels.append((posterior, prior, posterior.at(noise[level - 1])))
        return Hierarchy(*zip(*reversed(levels), strict=True))

    def infer_sets(self, params: Params, batch: Batch, noise: Noise) -> Hierarchy:
        """The same for every set of modalities, [S, B, D_l], of a batch that is `masked()`."""
        names, present = tuple(self.modalities), self._present(batch)
        members = membership(subsets_of(names), names)
        used = (members.T[:, :, None] & present[:, None]).reshape(len(names), -1)
        seen = jax.tree.map(lambda x: jnp.tile(x, (1, len(members), 1)), self.encode(params, batch))
        rows = self.infer(params, seen, used, tuple(x.reshape(-1, x.shape[-1]) for x in noise.z))
        return jax.tree.map(lambda x: x.reshape(len(members), -1, x.shape[-1]), rows)

    def loss(self, params: Params, batch: Batch, noise: Noise | Key, step: Array) -> tuple[Array, Mapping[str, Array]]:
        """Equation (4), [B], of a batch that is `masked()`, and its terms, means over sets: nll [M, B], kl_l [B]."""
        if not isinstance(noise, Noise):
            sets = 2 ** len(self.modalities) - 1
            noise = Noise(self._normal(noise, (sets, len(batch))))
        found = self.infer_sets(params, batch, noise)
        networks = Networks(self, params, batch, self.weights_at(step))
        kls = [q.kl(p).mean(0) for q, p in zip(found.q, found.p, strict=True)]
        nll = -networks.log_probs(found.z[0], {}).mean(1)
        loss = networks.weighted(nll) + at(self.beta, step) * sum(kls)
        return loss, {"nll": nll, **{f"kl_{level}": kl for level, kl in enumerate(kls, 1)}}

    def log_weight(self, params: Params, batch: Batch) -> Callable[[Key, Array], Array]:
        """Of (1), by the posterior (2), (3) given all that is present."""
        seen, present = self.encode(params, batch), self._present(batch)
        networks = Networks(self, params, batch, self.weights_at(jnp.zeros(())))

        def log_weight(key: Key, quantile: Array) -> Array:
            found = self.infer(params, seen, present, self._normal(key, (len(batch),)))
            levels = zip(found.p, found.q, found.z, strict=True)
            return networks.log_probs(found.z[0], {}).sum(0) + sum(p.log_prob(z) - q.log_prob(z) for p, q, z in levels)

        return log_weight

    def decoded(self, params: Params, batch: Batch, key: Key, wanted: tuple[str, ...], code: Code) -> dict[str, Array]:
        noise = self._normal(key, (len(batch),))
        if code == "mean":
            noise = jax.tree.map(jnp.zeros_like, noise)
        z = self.infer(params, self.encode(params, batch), self._present(batch), noise).z[0]
        return {name: self.modalities[name].generate(self.decoder(params, name), z, None) for name in wanted}

    def code_size(self, name: str) -> int:
        """The numbers of z_1, from which everything is decoded."""
        return self.levels[0]

    def to_code(self, variables: Variables, name: str, x: Array) -> tuple[Array, Array]:
        """Mean and deviation of q(z_1 | x_m), [B, D_1] each, of x [B, *shape], the codes above being their means."""
        params, batch = variables["params"], self.alone(name, x)
        nothing = tuple(jnp.zeros((len(x), size)) for size in self.levels)
        q = self.infer(params, self.encode(params, batch), self._present(batch), nothing).q[0]
        return q.mean, jnp.sqrt(q.variance)

    def _experts(self, params: Params, level: int, h: Array, features: Array) -> Gaussian:
        """q(z_l | h_l, d_l), [M, N, D_l], of h_l [N, F] and d_l [M, N, F]."""

        def of(name: str, d: Array) -> Gaussian:
            own = params["all" if self.shared_posterior else name][f"level_{level}"]
            return self._say(own, jnp.concatenate([h, d], axis=-1), self.levels[level - 1])

        each = [of(name, d) for name, d in zip(self.modalities, features, strict=True)]
        return jax.tree.map(lambda *x: jnp.stack(x), *each)

    def _normal(self, key: Key, lead: tuple[int, ...]) -> tuple[Array, ...]:
        """Standard normal [*lead, D_l] of every level."""
        keys = jax.random.split(key, len(self.levels))
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return tuple(Gaussian.noise(k, (*lead, size), dtype) for k, size in zip(keys, self.levels, strict=True))

    @property
    def _block(self) -> nn.Module:
        return hidden(self.block, self.features, self.dtype)

    def _gaussian(self, size: int) -> nn.Module:
        return headed(self.block, self.features, 2 * size, self.dtype)

    def _say(self, params: Params, x: Array, size: int) -> Gaussian:
        return Gaussian(*jnp.split(apply(self._gaussian(size), params, x), 2, axis=-1))

    def _present(self, batch: Batch) -> Array:
        return jnp.stack([batch.present[name] for name in self.modalities])
