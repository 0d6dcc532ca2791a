"""Weights of MultiVae, the PyTorch library (Senellart et al. 2025), as parameters of our models.

PyTorch is not needed. Where it is, save the weights of a model of MultiVae once, and read them here:

    np.savez("weights.npz", **{key: value.numpy() for key, value in model.state_dict().items()})

    with np.load("weights.npz") as state:
        params = from_multivae(state, model)
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax.nn.beside import SideBySide
from mmgen_jax.types import Params
from mmgen_jax.vae.fusion import JointEncoder
from mmgen_jax.vae.model import VAE
from mmgen_jax.vae.multivae_layers import Weights, decoder, encoder, joint_encoder


def from_multivae(state: Mapping[str, np.ndarray], model: VAE) -> Params:
    """The parameters of `model` that make it the model of MultiVae whose weights `state` holds.

    Each modality has the name it has there, and the counterparts of its networks there (and `Normal` or `Laplace` of
    the same scale, which is not in the weights):

        EncoderConvMMNIST_adapted         encoder=ConvEncoder()
        EncoderConvMMNIST                 encoder=ConvEncoder(hidden=latent)
        EncoderConvMMNIST_multilatents    encoder=Towers(ConvEncoder(), private=...)
        DecoderConvMMNIST                 decoder=ConvDecoder(shape)
        EncoderResnetMMNIST               encoder=ResNetEncoder(activation_first=False), alone or in Towers
        DecoderResnetMMNIST               decoder=ResNetDecoder(shape, activation_first=False)
        Encoder_VAE_MLP, ..._Style        encoder=DenseEncoder((512, 512)), encoder=DenseEncoder((512,))
        Decoder_AE_MLP                    decoder=DenseDecoder(shape)
        MultipleHeadJointEncoder          fusion=JointEncoder(network=SideBySide({name: encoder, ...}, latent)), which
                                          JMVAE and TELBO have as a field of the objective

    `activation_first=True` takes the names of the residual networks that its published MMVAE+ has instead.

    Args:
        state: arrays by MultiVae's names, such as "encoders.m0.class_mu.weight".

    Raises:
        ValueError: a network has no counterpart, a name is missing or has no place, or a shape does not fit.
    """
    weights = Weights(state)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0))[0])
    params = {"encoders": {}, "decoders": {}}
    for name, modality in model.modalities.items():
        sizes = (model.latent, model.private.get(name, 0))
        whole = like["encoders"][name]
        params["encoders"][name] = encoder(weights, f"encoders.{name}", modality.encoder, modality.shape, whole, sizes)
        params["decoders"][name] = decoder(weights, f"decoders.{name}", modality.decoder, like["decoders"][name])
    params |= {"fusion": {}, "objective": scales(weights, like["objective"])}
    fusion = model.objective.fusion
    if isinstance(fusion, JointEncoder) and isinstance(fusion.network, SideBySide):
        shapes = {name: modality.shape for name, modality in model.modalities.items()}
        params["fusion"] = joint_encoder(weights, fusion.network, shapes, like["fusion"])
    weights.check_used_up()
    check_complete(params, like)
    return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), params, like)


def check_complete(params: Params, like: Params) -> None:
    """Raises ValueError where the model has parameters that no weights of MultiVae stand for."""
    made = {path for path, _ in jax.tree.leaves_with_path(params)}
    for path, _ in jax.tree.leaves_with_path(like):
        if path not in made:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"the model has {name}, but weights of MultiVae hold nothing like it")


def scales(weights: Weights, like: Params) -> Params:
    """The raw scales that MMVAE and MMVAE+ learn of their priors, where the objective learns them as well."""
    params = {}
    if "prior" in like:
        key = "prior_log_var" if "prior_log_var" in weights.state else "logvars_priors.shared"
        params["prior"] = weights.take(key, (1, *like["prior"].shape))[0]
    if "auxiliary" in like:
        taken = {name: weights.take(f"logvars_priors.{name}", (1, *x.shape)) for name, x in like["auxiliary"].items()}
        params["auxiliary"] = {name: x[0] for name, x in taken.items()}
    return params
