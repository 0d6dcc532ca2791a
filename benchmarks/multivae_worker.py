"""MultiVae's side of `versus_multivae.py`: a process with torch and multivae, which need not share ours with JAX.

It answers requests as `peer.py` says; modalities are [N, C, H, W] here.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import multivae.models
import numpy as np
import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.models.base import BaseAEConfig
from multivae.models.nn.default_architectures import Decoder_AE_MLP, Encoder_VAE_MLP, Encoder_VAE_MLP_Style
from multivae.models.nn.mmnist import DecoderConvMMNIST, EncoderConvMMNIST_adapted, EncoderConvMMNIST_multilatents
from peer import load, serve

SHAPE = (3, 28, 28)


def build(
    names: list[str], kind: str, config: dict[str, Any], latent: int, private: int, dense: bool
) -> torch.nn.Module:
    """A model with the convolutional networks and the Laplace likelihood of the library's benchmark on PolyMNIST.

    dense: with the library's default networks and a Normal likelihood instead.
    """
    sizes = BaseAEConfig(latent_dim=latent, style_dim=private, input_dim=SHAPE)
    both = BaseAEConfig(latent_dim=latent + private, style_dim=0, input_dim=SHAPE)
    if dense:
        encoder, decoder = Encoder_VAE_MLP_Style if private else Encoder_VAE_MLP, Decoder_AE_MLP
    else:
        encoder, decoder = EncoderConvMMNIST_multilatents if private else EncoderConvMMNIST_adapted, DecoderConvMMNIST
    scale = 0.25 if dense else 0.75
    fields = {
        "n_modalities": len(names),
        "latent_dim": latent,
        "input_dims": dict.fromkeys(names, SHAPE),
        "decoders_dist": dict.fromkeys(names, "normal" if dense else "laplace"),
        "decoder_dist_params": {name: {"scale": scale} for name in names},  # one dict each: the library empties it
    }
    if private:
        fields["modalities_specific_dim"] = private
    return getattr(multivae.models, kind)(
        getattr(multivae.models, f"{kind}Config")(**fields, **config),
        encoders={name: encoder(sizes) for name in names},
        decoders={name: decoder(both) for name in names},
    )


def fixed(draws: Iterator[np.ndarray]) -> Callable[..., torch.Tensor]:
    """`rsample` with the standard noise given beforehand, in the order in which the model asks for it."""

    def rsample(self: Any, sample_shape: Any = ()) -> torch.Tensor:
        noise = torch.as_tensor(next(draws), device=self.loc.device)
        if noise.shape != (*sample_shape, *self.loc.shape):
            raise ValueError(f"noise of shape {tuple(noise.shape)} for a code of {(*sample_shape, *self.loc.shape)}")
        return self.loc + self.scale * noise

    return rsample


class Worker:
    """The model at hand, its optimiser and its data."""

    def __init__(self, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.device = device

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        return {"torch": torch.__version__, "multivae": version("multivae"), "python": platform.python_version()}

    def model(self, seed: int, rate: float, out: str, **what: Any) -> dict[str, Any]:
        """A fresh model and Adam; its weights go to `out`."""
        torch.manual_seed(seed)
        np.random.seed(seed)
        self.net = build(**what).to(self.device).train()
        self.adam = torch.optim.Adam([p for p in self.net.parameters() if p.requires_grad], lr=rate)
        return self.save(out) | {"parameters": sum(p.numel() for p in self.net.parameters() if p.requires_grad)}

    def save(self, out: str) -> dict[str, Any]:
        np.savez(out, **{name: value.cpu().numpy() for name, value in self.net.state_dict().items()})
        return {}

    def data(self, path: str) -> dict[str, Any]:
        """What all later requests are about."""
        self.values = {name: torch.as_tensor(x, device=self.device) for name, x in load(path).items()}
        return {}

    def loss(self, draws: str, out: str) -> dict[str, Any]:
        """The loss of all data at noise that is given, a mean over the examples; its gradients go to `out`."""
        noise, kinds = load(draws), (torch.distributions.Normal, torch.distributions.Laplace)
        kept = [kind.rsample for kind in kinds]
        asked = iter(noise[str(i)] for i in range(len(noise)))
        try:
            for kind in kinds:
                kind.rsample = fixed(asked)
            value = self._forward(self.values).loss_sum / len(next(iter(self.values.values())))
        finally:
            for kind, rsample in zip(kinds, kept, strict=True):
                kind.rsample = rsample
        self.net.zero_grad()
        value.backward()
        grads = {name: p.grad for name, p in self.net.named_parameters()}
        like = self.net.state_dict()
        np.savez(out, **{n: np.zeros(like[n].shape) if g is None else g.cpu().numpy() for n, g in grads.items()})
        return {"loss": value.item(), "unused": len(list(asked))}

    def time(self, steps: int) -> dict[str, Any]:
        """Seconds for so many steps on all data as one batch, of the clock and of all processors."""
        self._wait()
        start, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self._step(self.values)
        self._wait()
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}

    def train(self, order: str) -> dict[str, Any]:
        """A step for each row of indices in `order`."""
        for rows in load(order)["rows"]:
            at = torch.as_tensor(rows, device=self.device)
            loss = self._step({name: x[at] for name, x in self.values.items()})
        return {"loss": loss.item()}

    def predict(self, given: list[str], out: str, batch: int = 250) -> dict[str, Any]:
        """Every modality that is not given, made by MultiVae's own `predict`, goes to `out`."""
        wanted, parts = [name for name in self.values if name not in given], []
        with torch.no_grad():
            for start in range(0, len(self.values[given[0]]), batch):
                some = MultimodalBaseDataset({name: x[start : start + batch] for name, x in self.values.items()})
                parts.append(self.net.predict(some, cond_mod=given, gen_mod=wanted))
        np.savez(out, **{name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in wanted})
        return {}

    def _forward(self, values: dict[str, torch.Tensor]) -> Any:
        data = MultimodalBaseDataset(data=values)
        return self.net(data, epoch=1, dataset_size=len(data), uses_ddp=False, batch_ratio=0.1)

    def _step(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        out = self._forward(values)
        self.adam.zero_grad()
        out.loss.backward()
        self.adam.step()
        return out.loss

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


if __name__ == "__main__":
    serve(Worker(threads=int(sys.argv[1]), device=sys.argv[2]))
