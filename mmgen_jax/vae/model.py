"""The multimodal variational autoencoder.

Every modality m has an encoder q(z | x_m), called its expert, and a decoder p(x_m | z). A fusion makes one posterior of
the experts that are there; an objective says what is minimised. Both are values of the model, so any fusion and
objective goes with any modalities. Optional private codes w_m, from which only modality m is decoded, keep what the
others cannot know (handwriting, voice) out of the shared code z.

    joint generation        z ~ p(z),                x_m ~ p(x_m | z, w_m),  w_m ~ p(w_m)
    given some of them      z ~ q(z | given),        the same, w_m ~ q(w_m | x_m) where m is given
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from mmgen_jax.modalities.given import known
from mmgen_jax.nn.ways import between
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Modality, Params, Stats, Variables
from mmgen_jax.vae.fusion import Evidence, Pooling
from mmgen_jax.vae.joint import Code, JointModel
from mmgen_jax.vae.latent import Distribution, Inference, Mixture, Noise, distribution
from mmgen_jax.vae.networks import Networks
from mmgen_jax.vae.objectives.base import Objective, Sizes
from mmgen_jax.vae.objectives.mvtcae import MVTCAE
from mmgen_jax.vae.priors import Fitted
from mmgen_jax.vae.priors import Prior as PriorFamily


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAE(JointModel):
    """A joint model of `modalities`, with the fields of `JointModel` and these.

    Attributes:
      latent: dimensions of the shared code z; 0 with private codes alone: an autoencoder of each modality by itself.
      private: dimensions of private codes, by modality; {} for none.
      objective: what is minimised, and how experts are fused.

    Raises:
      ValueError: a weight or private code names no modality, a size is not positive, or the objective cannot do with
        these private codes.
    """

    latent: int = 32
    private: Mapping[str, int] = FrozenDict()
    objective: Objective = MVTCAE()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_by_name("private", self.private)
        apart = self.private.keys() == self.modalities.keys() and not isinstance(self.objective.fusion, Pooling)
        if self.latent < (0 if apart else 1):
            raise ValueError(
                f"latent is {self.latent}, but must be at least 1, or 0 if every modality has a private code and the "
                "fusion does not pool"
            )
        self.objective.check(self._sizes)

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters, and no statistics."""
        sizes = {name: self.code_size(name) for name in self.modalities}
        return {
            "encoders": {name: self.encoder_params(name, key, 2 * size) for name, size in sizes.items()},
            "decoders": {name: self.decoder_params(name, key, size) for name, size in sizes.items()},
            "fusion": self.objective.fusion.init(fold_name(key, "fusion"), self.modalities, self.latent),
            "objective": self.objective.init(fold_name(key, "objective"), self._sizes),
        }, {}

    def encode(self, params: Params, batch: Batch) -> Inference:
        """The experts of a batch that is `masked()`, and what they say together."""
        codes = {name: self._code(params, name, batch) for name in self.modalities}
        experts = jax.tree.map(lambda *x: jnp.stack(x), *(shared for shared, _ in codes.values()))
        present = jnp.stack([batch.present[name] for name in self.modalities])
        joint = self.objective.fusion.joint(params["fusion"], self.evidence(batch, experts, present))
        private = {name: codes[name][1] for name in self._private_sizes}
        return Inference(experts, present, joint, private, tuple(self.modalities))

    def evidence(self, batch: Batch, experts: Distribution, present: Array) -> Evidence:
        """What a fusion is given, if just `present` [M, B] is there of a batch that is `masked()`."""
        rows = dict(zip(self.modalities, present, strict=True))
        values = Batch({name: batch.values[name] for name in rows}, rows).masked().values
        return Evidence(self.modalities, values, present, experts, jnp.dtype(self.dtype))

    def networks(self, params: Params, batch: Batch, step: Array) -> Networks:
        """The decoders for a batch that is `masked()`, with the weights of that step."""
        return Networks(self, params, batch, self.weights_at(step))

    def loss(self, params: Params, batch: Batch, noise: Noise | Key, step: Array) -> tuple[Array, Mapping[str, Array]]:
        """The objective [B] of a batch that is `masked()`, and its unweighted terms by name, [B] or [M, B] each."""
        inference = self.encode(params, batch)
        if not isinstance(noise, Noise):
            noise = self.objective.noise(noise, inference)
        return self.objective(params["objective"], inference, self.networks(params, batch, step), noise, step)

    def log_weight(self, params: Params, batch: Batch) -> Callable[[Noise | Key, Array], Array]:
        """By the objective's `proposal`; `Noise` in place of a key may have leading axes, and so has log W then."""
        inference, networks = self.encode(params, batch), self.networks(params, batch, jnp.zeros(()))
        evidence = self.evidence(batch, inference.experts, inference.present)
        q = self.objective.proposal(params["objective"], params["fusion"], evidence)
        p = self.objective.prior(params["objective"], inference)

        def log_weight(noise: Noise | Key, quantile: Array) -> Array:
            if not isinstance(noise, Noise):
                noise = Noise.draw(noise, inference)
            z, private = q.stratum(quantile).at(noise.z), inference.private_at(noise)
            total = networks.log_probs(z, private).sum(0) + p.shared.log_prob(z) - q.log_prob(z)
            for name, w in private.items():
                ratio = p.private[name].log_prob(w) - inference.private[name].log_prob(w)
                total = total + jnp.where(batch.present[name], ratio, 0)
            return total

        return log_weight

    def frozen_from(self) -> Mapping[str, int]:
        return self.objective.frozen

    def codes(self, params: Params, batch: Batch, key: Key | None) -> dict[str, Array]:
        """Codes of a batch that is `masked()`, drawn, or the means without a key: z [B, D] as "", w_m [B, D_m] by name.

        From the posterior given what is present, and from the prior for what nothing present speaks of.
        """
        inference = self.encode(params, batch)
        evidence = self.evidence(batch, inference.experts, inference.present)
        posterior = self.objective.conditional(params["objective"], params["fusion"], evidence)
        prior = self.objective.prior(params["objective"], inference)

        def draw(name: str, given: Mixture, otherwise: Mixture, present: Array) -> Array:
            if key is None:
                return jnp.where(present[:, None], given.mean, otherwise.mean)
            keys = jax.random.split(fold_name(key, f"code/{name}"))
            return jnp.where(present[:, None], given.sample(keys[0]), otherwise.sample(keys[1]))

        codes = {"": draw("", posterior, prior.shared, inference.present.any(0))}
        for name, q in inference.private.items():
            own, otherwise = Mixture.single(q), Mixture.single(prior.private[name])
            codes[name] = draw(name, own, otherwise, batch.present[name])
        return codes

    def decoded(self, params: Params, batch: Batch, key: Key, wanted: tuple[str, ...], code: Code) -> dict[str, Array]:
        return self.decode(params, self.codes(params, batch, key if code == "draw" else None), wanted)

    def decoded_from(
        self, params: Params, batch: Batch, key: Key, wanted: tuple[str, ...], start: Array
    ) -> dict[str, Array]:
        codes, sizes = self.codes(params, batch, key), [self.latent, *self._private_sizes.values()]
        nothing = ~jnp.stack(list(batch.present.values())).any(0)[:, None]
        parts = dict(zip(codes, jnp.split(start, np.cumsum(sizes)[:-1], axis=-1), strict=True))
        chosen = {name: jnp.where(nothing, parts[name], code) for name, code in codes.items()}
        return self.decode(params, chosen, wanted)

    def fit_prior(self, variables: Variables, data: Batch, prior: PriorFamily, key: Key) -> Fitted:
        """`prior` fitted to codes of `data` (a split in memory), for `sample(prior=...)`.

        One draw of the posterior for each example, shared and private codes side by side, `[N, D + sum_m D_m]`: what is
        decoded in training, and so what decoders know.
        """
        draw = jax.jit(lambda params, batch, key: jnp.concatenate(list(self.codes(params, batch, key).values()), -1))
        size = min(len(data), 500)
        rows = np.arange(-(-len(data) // size) * size).reshape(-1, size) % len(data)
        parts = [
            draw(variables["params"], data.take(batch).masked(), jax.random.fold_in(key, i))
            for i, batch in enumerate(rows)
        ]
        codes = jnp.concatenate(parts)[: len(data)]
        return Fitted(prior.fit(fold_name(key, "fit"), codes), prior)

    def decode(self, params: Params, codes: Mapping[str, Array], wanted: tuple[str, ...]) -> dict[str, Array]:
        """The modalities `wanted`, [B, *shape] each, from codes as `codes` returns them, without noise."""
        made = {}
        for name in wanted:
            code = jnp.concatenate([codes[""], codes[name]], axis=-1) if name in codes else codes[""]
            made[name] = self.from_code({"params": params}, name, code)
        return made

    def log_predictive(self, variables: Variables, batch: Batch, key: Key, of: str, draws: int | None = None) -> Array:
        """log 1/K sum_k p(x_of | z_k), z_k ~ q(z | given), [B] in nats: how probable `sample` makes what is there.

        Given is what is present of the other modalities; 0 where `of` is not. K = `draws`, 16 by default. This is no
        likelihood, which `log_likelihood` estimates: q is not the model's posterior. It is what is answered, is far
        less noisy, and has gradients by what is given.
        """
        known(self.modalities, of)
        params, rest = variables["params"], {n: there & (n != of) for n, there in batch.present.items()}
        given, modality = Batch(batch.values, rest).masked(), self.modalities[of]

        def one(key: Key) -> Array:
            codes = self.codes(params, given, key)
            code = jnp.concatenate([codes[""], codes[of]], axis=-1) if of in codes else codes[""]
            return modality.log_prob(self.decoder(params, of), code, batch.values[of])

        each = jax.lax.map(one, jax.random.split(key, 16 if draws is None else draws))
        return jnp.where(batch.present[of], jax.nn.logsumexp(each, axis=0) - math.log(len(each)), 0)

    def between(self, variables: Variables, key: Key, n: int, shares: Array) -> dict[str, Array]:
        """Decoded codes at shares [n] of the ways between n pairs of the prior, which are the same for the same key."""
        nothing = Batch.nothing(self.modalities, n)
        first, last = (self.codes(variables["params"], nothing, part) for part in jax.random.split(key))
        codes = {name: jax.vmap(between)(code, last[name], shares) for name, code in first.items()}
        return self.decode(variables["params"], codes, self.makes)

    def code_size(self, name: str) -> int:
        """Of how many numbers a modality is decoded: the shared and its private code."""
        return self.latent + self.private.get(name, 0)

    def to_code(self, variables: Variables, name: str, x: Array) -> tuple[Array, Array]:
        """Mean and deviation [B, code_size] of the code of a modality by itself, x [B, *shape], whatever its family."""
        params, batch = variables["params"], self.alone(name, x)
        inference = self.encode(params, batch)
        evidence = self.evidence(batch, inference.experts, inference.present)
        shared = self.objective.conditional(params["objective"], params["fusion"], evidence)
        parts = [shared, *(inference.private[n] for n in self._private_sizes if n == name)]
        means, variances = [q.mean for q in parts], [q.variance for q in parts]
        return jnp.concatenate(means, axis=-1), jnp.sqrt(jnp.concatenate(variances, axis=-1))

    @property
    def _private_sizes(self) -> dict[str, int]:
        """In the order of the modalities."""
        return {name: self.private[name] for name in self.modalities if name in self.private}

    @property
    def _sizes(self) -> Sizes:
        return Sizes(self.modalities, self.latent, self.private)

    def _code(self, params: Params, name: str, batch: Batch) -> tuple[Distribution, Distribution]:
        """Shared and private code of one modality; where it is missing, what the family makes of zeros: the prior."""
        out = self.encoder(params, name, batch.values[name], 2 * self.code_size(name))
        mean, raw = jnp.split(jnp.where(batch.present[name][:, None], out, 0), 2, axis=-1)
        shared, private = np.s_[:, : self.latent], np.s_[:, self.latent :]
        family = self.objective.family
        return distribution(family, mean[shared], raw[shared]), distribution(family, mean[private], raw[private])


def equal_dimensions(modalities: Mapping[str, Modality]) -> dict[str, float]:
    """Weights that make up for size: the largest number of dimensions over a modality's own (Shi et al. 2019)."""
    sizes = {name: max(1, math.prod(modality.shape)) for name, modality in modalities.items()}
    return {name: max(sizes.values()) / size for name, size in sizes.items()}
