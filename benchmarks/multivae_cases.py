"""The same models in MultiVae and here: what each is called, its networks, weights and noise, and the process of one.

Used by `versus_multivae.py`, which says what must be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from peer import Arrays, Peer, peer

import mmgen_jax as mm
from mmgen_jax.nn.beside import SideBySide
from mmgen_jax.nn.mlp import DenseDecoder, DenseEncoder
from mmgen_jax.nn.polymnist import ConvDecoder, ConvEncoder
from mmgen_jax.nn.towers import Towers
from mmgen_jax.types import Batch, Params
from mmgen_jax.vae.latent import Noise

NAMES = tuple(f"m{i}" for i in range(5))
TOLERANCE = 1e-3  # of the gradient, relative to its norm; of the loss it is a tenth of that


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of both libraries: MultiVae's class and configuration, and our objective."""

    kind: str
    config: dict[str, Any]
    objective: Any
    private: bool = False  # half of the latent dimensions are private codes
    dense: bool = False  # MultiVae's default networks and a likelihood that they learn sooner with

    def view(self, private: int) -> mm.Image:
        if self.dense:
            layers = (512,) if private else (512, 512)
            networks = {"encoder": DenseEncoder(layers), "decoder": DenseDecoder((28, 28, 3))}
            return mm.Image(28, 28, 3, likelihood=mm.Normal(0.25), **networks)
        encoder = Towers(ConvEncoder(), private=private) if private else ConvEncoder()
        return mm.Image(28, 28, 3, likelihood=mm.Laplace(0.75), encoder=encoder, decoder=ConvDecoder())

    def model(self, latent: int) -> mm.VAE:
        size = latent // 2 if self.private else latent
        view = self.view(size * self.private)
        objective = self.objective
        if self.kind == "JMVAE":
            network = SideBySide(dict.fromkeys(NAMES, view.encoder), size)
            objective = dataclasses.replace(objective, fusion=mm.vae.JointEncoder(network=network))
        private = dict.fromkeys(NAMES, size) if self.private else {}
        return mm.VAE(modalities=dict.fromkeys(NAMES, view), latent=size, private=private, objective=objective)

    def request(self, latent: int) -> dict[str, Any]:
        size = latent // 2 if self.private else latent
        return {"names": NAMES, "kind": self.kind, "config": self.config, "latent": size,
                "private": size * self.private, "dense": self.dense}  # fmt: skip


def mixture(kind: str, samples: int, loss: str = "dreg_looser", **config: Any) -> Case:
    """MMVAE or MMVAE+ with so many samples."""
    both = {"K": samples, "prior_and_posterior_dist": "laplace_with_softmax", "loss": loss, **config}
    fields = {"samples": samples, "estimator": loss.removesuffix("_looser")}
    if kind == "MMVAE":
        return Case(kind, both | {"learn_prior": False}, mm.vae.MMVAE(learn_prior=False, **fields))
    return Case(kind, both, mm.vae.MMVAEPlus(beta=config["beta"], **fields), private=True)


CASES = {
    "MVTCAE": Case("MVTCAE", {"alpha": 5 / 6, "beta": 2.5}, mm.vae.MVTCAE(alpha=5 / 6, beta=2.5)),
    "MoPoE": Case("MoPoE", {"beta": 2.5}, mm.vae.MoPoE(beta=2.5)),
    "JMVAE": Case("JMVAE", {"alpha": 0.1, "warmup": 1}, mm.vae.JMVAE(alpha=0.1)),
    "MVAE": Case("MVAE", {"beta": 2.5, "warmup": 0}, mm.vae.MVAE(beta=2.5)),
    "MMVAE+ K=1": mixture("MMVAEPlus", 1, beta=2.5),
    "MMVAE K=10": mixture("MMVAE", 10),
    "MMVAE+ K=10": mixture("MMVAEPlus", 10, beta=2.5),
}
# As published for K=1; with one sample both estimators have the same value and the same expected gradient.
TRAINED = {
    "MVTCAE": Case("MVTCAE", {"alpha": 5 / 6, "beta": 1.0}, mm.vae.MVTCAE(alpha=5 / 6, beta=1.0), dense=True),
    "MMVAE+ K=1": dataclasses.replace(mixture("MMVAEPlus", 1, "iwae_looser", beta=1.0), dense=True),
}


@contextlib.contextmanager
def multivae(options: argparse.Namespace) -> Iterator[Peer]:
    """The process that runs MultiVae."""
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    worker = Path(__file__).with_name("multivae_worker.py")
    with peer(options.torch_python, "-W", "ignore", str(worker), str(options.threads), device) as theirs:
        yield theirs


def channels_first(values: Arrays) -> Arrays:
    return {name: np.ascontiguousarray(np.moveaxis(x, -1, 1)) for name, x in values.items()}


def noise_of(model: mm.VAE, params: Params, batch: Batch) -> tuple[Noise, Arrays]:
    """Noise for both: ours, and the same numbered in the order in which MultiVae draws it."""
    shapes = jax.eval_shape(lambda key: model.objective.noise(key, model.encode(params, batch)), jax.random.key(0))
    rng = np.random.default_rng(0)
    draw = rng.laplace if model.objective.family == "laplace" else rng.normal
    noise = jax.tree.map(lambda x: draw(size=x.shape).astype(np.float32), shapes)
    if isinstance(model.objective, mm.vae.MoPoE):  # there the batch is cut into equal pieces, the rest to the last set
        sets, size = noise.choice.shape
        chosen = np.minimum(np.arange(size) // max(size // sets, 1), sets - 1) if size >= sets else sets - 1
        noise = noise.replace(choice=np.where(np.arange(sets)[:, None] == chosen, 1e3, 0).astype(np.float32))
    draws = noise.z.reshape(-1, *noise.z.shape[-2:]) if isinstance(model.objective, mm.vae.MVAE) else [noise.z]
    if isinstance(model.objective, mm.vae.MMVAE | mm.vae.MMVAEPlus):
        draws = []
        for m, name in enumerate(NAMES):
            targets = [name, *(other for other in NAMES if other != name)] if noise.private else []
            draws += [noise.z[m], *(noise.private[target][m] for target in targets)]
    return noise, {str(i): x for i, x in enumerate(draws)}


def check_same(case: Case, latent: int, theirs: Peer, params: Params, values: Arrays) -> dict[str, float]:
    """How far loss and gradients of both are apart; AssertionError if that is more than `TOLERANCE`."""
    model = case.model(latent)
    batch = Batch(values, {name: np.ones(len(x), bool) for name, x in values.items()})
    noise, draws = noise_of(model, params, batch)

    def loss(params: Params) -> Any:
        return model.loss(params, batch.masked(), noise, jnp.int32(0))[0].mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.savez(theirs.folder / "draws.npz", **draws)
    answer, state = theirs.fetch("loss", draws=str(theirs.folder / "draws.npz"))
    assert answer["unused"] == 0, f"{case.kind} drew {answer['unused']} times less than is known of it"
    other = mm.vae.from_multivae(state, model)
    apart = optax.tree.norm(optax.tree.sub(grads, other)) / optax.tree.norm(other)
    off = {"loss": abs(float(value) / answer["loss"] - 1), "gradient": float(apart)}
    assert off["loss"] < TOLERANCE / 10 and off["gradient"] < TOLERANCE, f"{case.kind}: {off}"
    return off
