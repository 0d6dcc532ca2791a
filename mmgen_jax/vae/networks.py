"""The networks of a model that an objective calls, bound to their parameters and to the batch at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from mmgen_jax.types import Array, Batch, Params
from mmgen_jax.vae.latent import Inference, Mixture

if TYPE_CHECKING:
    from mmgen_jax.vae.joint import JointModel


@dataclasses.dataclass(frozen=True)
class Networks:
    """The decoders p(x_m | z, w_m) of every modality m in the model's order, and the fusion of experts.

    Log-likelihoods are in nats, and zero where m is missing. Codes may have any leading axes, for samples, subsets or
    experts: all of them go through a decoder in one call.
    """

    model: JointModel
    params: Params
    batch: Batch  # masked
    weights: Array  # [M], the factor on each log-likelihood in a loss

    def log_probs(self, z: Array, private: Mapping[str, Array]) -> Array:
        """log p(x_m | z, w_m), [M, ..., B], of codes z [..., B, D] and private codes [..., B, D_m]."""
        return jnp.stack([self._log_prob(name, z, private) for name in self.model.modalities])

    def own(self, z: Array, private: Mapping[str, Array]) -> Array:
        """The same with a code of its own for each modality, z [M, ..., B, D]."""
        return jnp.stack([self._log_prob(name, z[m], private) for m, name in enumerate(self.model.modalities)])

    def weighted(self, terms: Array) -> Array:
        """Terms [M, ...] summed over the modalities, each with its weight."""
        return jnp.tensordot(self.weights.astype(terms.dtype), terms, axes=1)

    def fuse(self, inference: Inference, present: Array) -> Mixture:
        """The posterior of training, if just `present` [M, B] of what is there were."""
        evidence = self.model.evidence(self.batch, inference.experts, present)
        return self.model.objective.fusion.joint(self.params["fusion"], evidence)

    def frozen(self) -> Networks:
        """The same networks, whose parameters are constants to the gradient."""
        return dataclasses.replace(self, params=jax.lax.stop_gradient(self.params))

    def _log_prob(self, name: str, z: Array, private: Mapping[str, Array]) -> Array:
        modality, x, present = self.model.modalities[name], self.batch.values[name], self.batch.present[name]
        code = jnp.concatenate([z, private[name]], axis=-1) if name in private else z
        lead, size = code.shape[:-2], code.shape[-2]
        flat = code.reshape(-1, code.shape[-1])
        repeated = jnp.broadcast_to(x, (len(flat) // size, *x.shape)).reshape(-1, *x.shape[1:])
        term = modality.log_prob(self.model.decoder(self.params, name), flat, repeated)
        return jnp.where(present, term.reshape(-1, size), 0).reshape(*lead, size)
