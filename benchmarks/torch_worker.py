"""PyTorch's side of `versus_torch.py`: the same networks in the form that is natural there, a process of its own.

It answers requests as `peer.py` says. Parameters have our names; `as_torch` brings them into PyTorch's layouts, and
pictures are [B, C, H, W]. Every function computes what ours of the same name does (asserted before anything is timed).
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peer import load, serve

Tensor = torch.Tensor
Params = dict[str, Tensor]
SLOPE = 0.2


def as_torch(name: str, x: np.ndarray) -> np.ndarray:
    """A parameter as PyTorch lays it out; x is ours."""
    if not name.endswith("kernel") or "stream" in name:
        return x
    # Flat kernels on cells of two by two: `nn/conv.py`, equations (1) and (2).
    if "Down" in name:
        kernel = x.reshape(2, 2, 2, 2, -1, x.shape[1]).transpose(5, 4, 0, 2, 1, 3)
        return kernel.reshape(*kernel.shape[:2], 4, 4)
    if "Up" in name:
        kernel = x.reshape(2, 2, -1, 2, 2, x.shape[1] // 4)[::-1, ::-1].transpose(2, 5, 0, 3, 1, 4)
        return kernel.reshape(*kernel.shape[:2], 4, 4)
    if "GroupedConv" in name:  # [groups, 9 inputs, outputs]
        groups, _, outputs = x.shape
        return x.reshape(groups, 3, 3, -1, outputs).transpose(0, 4, 3, 1, 2).reshape(groups * outputs, -1, 3, 3)
    return x.T


def linear(p: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}/kernel"], p.get(f"{name}/bias"))


def pixels(p: Params, name: str, x: Tensor) -> Tensor:
    """A linear layer on the channels of x [B, C, H, W]."""
    return F.conv2d(x, p[f"{name}/kernel"][..., None, None], p.get(f"{name}/bias"))


# VAE ------------------------------------------------------------------------------------------------------------------


def mlp(p: Params, name: str, x: Tensor, layers: int) -> Tensor:
    for i in range(layers - 1):
        x = F.silu(linear(p, f"{name}/Dense_{i}", x))
    return linear(p, f"{name}/Dense_{layers - 1}", x)


def rms_norm(p: Params, name: str, x: Tensor) -> Tensor:
    x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
    return x * p[f"{name}/scale"][:, None, None]


def conv_encoder(p: Params, name: str, x: Tensor) -> Tensor:
    for i in range(3):
        odd = x.shape[-1] % 2
        conv = f"{name}/Down_{i}/ConvOnCells_0"
        x = F.conv2d(F.pad(x, (0, odd, 0, odd)), p[f"{conv}/kernel"], p[f"{conv}/bias"], stride=2, padding=1)
        x = F.silu(rms_norm(p, f"{name}/RMSNorm_{i}", x))
    x = F.silu(linear(p, f"{name}/Dense_0", x.permute(0, 2, 3, 1).flatten(1)))
    return linear(p, f"{name}/Dense_1", x)


def conv_decoder(p: Params, name: str, z: Tensor) -> Tensor:
    x = linear(p, f"{name}/Dense_1", F.silu(linear(p, f"{name}/Dense_0", z)))
    x = x.reshape(len(x), 4, 4, -1).permute(0, 3, 1, 2)
    for i, size in enumerate((7, 14, 28)):
        conv = f"{name}/Up_{i}/ConvOnCells_0"
        x = F.silu(rms_norm(p, f"{name}/RMSNorm_{i}", x))
        x = F.conv_transpose2d(x, p[f"{conv}/kernel"], stride=2, padding=1)[..., :size, :size]
        # Ours has a bias for each of the four pixels of a cell, which begins one pixel before the picture.
        bias = p[f"{conv}/bias"].reshape(2, 2, -1).permute(2, 0, 1)
        x = x + bias.roll((-1, -1), (1, 2)).repeat(1, -(-size // 2), -(-size // 2))[:, :size, :size]
    return x


def kl(mean: Tensor, log_var: Tensor) -> Tensor:
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)


def vae_loss(p: Params, x: Tensor, eps: Tensor, convolutional: bool) -> Tensor:
    """The negative ELBO of black and white pictures, a mean over the batch."""
    if convolutional:
        h = conv_encoder(p, "encoders/image", x)
    else:
        h = linear(p, "encoders/image/Dense_0", mlp(p, "encoders/image/encoder", x.flatten(1), 2))
    mean, log_var = h.chunk(2, -1)
    z = mean + torch.exp(log_var / 2) * eps
    out = conv_decoder(p, "decoders/image", z) if convolutional else mlp(p, "decoders/image", z, 3)
    nll = F.binary_cross_entropy_with_logits(out.reshape(x.shape), x, reduction="none").flatten(1).sum(1)
    return (nll + kl(mean, log_var)).mean()


def mopoe_loss(p: Params, eps: Tensor, gumbel: Tensor, members: Tensor, **views: Tensor) -> Tensor:
    """MoPoE of views with unit Laplace likelihoods: members [S, M] are 1 or 0, gumbel [S, B] chooses a set S."""
    mean, log_var = torch.stack([conv_encoder(p, f"encoders/{v}", x) for v, x in views.items()]).chunk(2, -1)
    precision = 1 / (log_var.exp() + 1e-8)
    prior = members.all(1).float()[:, None, None] / (1 + 1e-8)  # is an expert of the set of all
    total = torch.einsum("sm,mbd->sbd", members, precision) + prior
    means, log_vars = torch.einsum("sm,mbd->sbd", members, precision * mean) / total, -total.log()
    rows = gumbel.argmax(0), torch.arange(len(eps), device=eps.device)
    z = means[rows] + torch.exp(log_vars[rows] / 2) * eps
    off = sum((conv_decoder(p, f"decoders/{v}", z) - x).abs().flatten(1).sum(1) for v, x in views.items())
    pixels = sum(x[0].numel() for x in views.values())
    return (off + pixels * math.log(2) + kl(means, log_vars).mean(0)).mean()


# DiT ------------------------------------------------------------------------------------------------------------------


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def dit(p: Params, x: Tensor, t: Tensor, y: Tensor, places: Tensor, frequencies: Tensor) -> Tensor:
    """x [B, C, H, W] at times t up to 1000 and labels y, patches of 2."""
    batch, channels, height, width = x.shape
    angles = t[:, None] * frequencies
    c = torch.cat([angles.cos(), angles.sin()], -1)
    c = linear(p, "time/dense_1", F.silu(linear(p, "time/dense_0", c))) + p["label/embedding"][y]
    c = F.silu(c)[:, None]
    cells = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    x = linear(p, "embed", cells.reshape(batch, -1, 4 * channels)) + places
    stream = "blocks/layers/stream"
    for i in range(len(p[f"{stream}/out/bias"])):
        x = dit_block({name.removeprefix(f"{stream}/"): v[i] for name, v in p.items() if stream in name}, x, c)
    x = modulated(x, *linear(p, "head/modulation/dense", c).chunk(2, -1))
    x = linear(p, "head/dense", x).reshape(batch, height // 2, width // 2, 2, 2, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)


def dit_block(p: Params, x: Tensor, c: Tensor) -> Tensor:
    """Kernels of a stack of blocks stay as ours are, [inputs, ..., outputs]."""
    batch, tokens, width = x.shape
    modulation = torch.addmm(p["modulation/dense/bias"], c[:, 0], p["modulation/dense/kernel"])[:, None]
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, -1)
    heads = p["qkv/bias"].shape[1]
    h = modulated(x, shift_1, scale_1)
    qkv = h @ p["qkv/kernel"].reshape(width, -1) + p["qkv/bias"].reshape(-1)
    q, k, v = qkv.reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
    x = x + gate_1 * (h @ p["out/kernel"].reshape(width, width) + p["out/bias"])
    h = modulated(x, shift_2, scale_2) @ p["feed_forward/dense_0/kernel"] + p["feed_forward/dense_0/bias"]
    h = F.gelu(h, approximate="tanh") @ p["feed_forward/dense_1/kernel"] + p["feed_forward/dense_1/bias"]
    return x + gate_2 * h


def flow_loss(p: Params, x: Tensor, y: Tensor, t: Tensor, noise: Tensor, **tables: Tensor) -> Tensor:
    """Rectified flow: the mean squared error of the velocity."""
    along = t[:, None, None, None]
    out = dit(p, (1 - along) * x + along * noise, 1000 * t, y, **tables)
    return (out - (noise - x)).square().mean()


# R3GAN ----------------------------------------------------------------------------------------------------------------


def lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def gan_block(p: Params, name: str, x: Tensor) -> Tensor:
    conv = f"{name}/GroupedConv_0"
    kernel = p[f"{conv}/kernel"]
    h = lrelu(pixels(p, f"{name}/Dense_0", x))
    h = lrelu(F.conv2d(h, kernel, p[f"{conv}/bias"], padding=1, groups=h.shape[1] // kernel.shape[1]))
    return x + pixels(p, f"{name}/Dense_1", h)


@functools.cache
def smoothing(channels: int, device: str) -> Tensor:
    """The filter [1, 3, 3, 1] / 8 along both axes, for every channel."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 8
    return torch.outer(row, row).expand(channels, 1, 4, 4).contiguous()


def generator(p: Params, code: Tensor, blocks: int = 2) -> Tensor:
    """Codes [B, Z] -> pictures, as many doublings as there are changes of size."""
    net, block = "generator/networks_image", 0
    basis = p[f"{net}/basis"]
    side, channels = math.isqrt(len(basis)), basis.shape[1]
    scale = linear(p, f"{net}/Dense_0", code)
    x = basis.T.reshape(1, channels, side, side) * scale[:, :, None, None]
    for dense, stage in stages(p, net, blocks, x.shape[1], rising=True):
        if stage:
            x = pixels(p, f"{net}/{dense}", x) if dense else x
            x = F.conv_transpose2d(x, 4 * smoothing(x.shape[1], str(x.device)), stride=2, padding=1, groups=x.shape[1])
        for _ in range(blocks):
            x = gan_block(p, f"{net}/Block_{block}", x)
            block += 1
    return pixels(p, f"{net}/{last_dense(p, net)}", x)


def critic(p: Params, x: Tensor, blocks: int = 2) -> Tensor:
    """Pictures -> values [B]."""
    net, block = "critic/networks_image", 0
    x = pixels(p, f"{net}/Dense_0", x)
    for dense, stage in stages(p, net, blocks, x.shape[1], rising=False):
        if stage:
            x = F.conv2d(x, smoothing(x.shape[1], str(x.device)), stride=2, padding=1, groups=x.shape[1])
            x = pixels(p, f"{net}/{dense}", x) if dense else x
        for _ in range(blocks):
            x = gan_block(p, f"{net}/Block_{block}", x)
            block += 1
    x = (x.flatten(2) * p[f"{net}/places"].T).sum(2)
    x = linear(p, f"{net}/{last_dense(p, net)}", x)
    return linear(p, "critic/values_image", lrelu(x))[:, 0]


def stages(p: Params, net: str, blocks: int, width: int, rising: bool) -> list[tuple[str, int]]:
    """Of each stage the layer that changes the width before it, "" where it stays, and its number."""
    count = sum(name.startswith(f"{net}/Block_") and name.endswith("Dense_1/kernel") for name in p) // blocks
    found, dense = [], 1
    for stage in range(count):
        now = p[f"{net}/Block_{stage * blocks}/Dense_1/kernel"].shape[0]
        changes = stage > 0 and now != width
        found.append((f"Dense_{dense}" if changes else "", stage))
        dense, width = dense + changes, now
    return found


def last_dense(p: Params, net: str) -> str:
    return f"Dense_{max(int(n.split('/')[2][6:]) for n in p if n.startswith(f'{net}/Dense_'))}"


def critic_loss(p: Params, x: Tensor, y: Tensor, gamma: float) -> Tensor:
    """Relativistic pairing with R1 and R2, exact slopes."""
    x, y = x.requires_grad_(), y.detach().requires_grad_()
    real, fake = critic(p, x), critic(p, y)
    slopes = torch.autograd.grad([real.sum(), fake.sum()], [x, y], create_graph=True)
    penalty = sum(slope.square().flatten(1).sum(1) for slope in slopes)
    return (F.softplus(fake - real) + gamma / 2 * penalty).mean()


def generator_loss(p: Params, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        real = critic(p, x)
    return F.softplus(real - critic(p, y)).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {  # of what is trained by one gradient
    "mlp_vae": functools.partial(vae_loss, convolutional=False),
    "conv_vae": functools.partial(vae_loss, convolutional=True),
    "mopoe": mopoe_loss,
    "dit": flow_loss,
}


# The process ----------------------------------------------------------------------------------------------------------


class Worker:
    """The case at hand, as many forms of its step as were asked for, and its data."""

    def __init__(self, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.device = device

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def case(self, name: str, weights: str, data: str, settings: dict[str, Any], dtype: str) -> dict[str, Any]:
        """Weights by our names, and the data of a step: fixed inputs, and what of them is drawn anew each time."""
        self.name, self.settings = name, settings
        self.precision = functools.partial(torch.autocast, self.device, torch.bfloat16, enabled=dtype == "bfloat16")
        arrays = {key: as_torch(key, x) for key, x in load(weights).items()}
        self.start = {key: self._tensor(x) for key, x in arrays.items()}
        self.data = {key: self._tensor(x) for key, x in load(data).items()}
        return {"parameters": sum(x.numel() for x in self.start.values())}

    def loss(self) -> dict[str, Any]:
        """Losses at the data as they are, and the norm of the gradient of each player."""
        p = {name: x.clone().requires_grad_() for name, x in self.start.items()}
        if self.name == "sample":
            with torch.no_grad():
                return {"loss": self._sampled(dit, p, self.data["noise"]).square().mean().item(), "grad_norm": 1.0}
        if self.name == "r3gan":
            y = generator(p, self.data["code"])
            norms, losses = [], []
            for player, term in (
                ("critic", critic_loss(p, self.data["x"].clone(), y, self.settings["gamma"])),
                ("generator", generator_loss(p, self.data["x"], y)),
            ):
                own = [x for name, x in p.items() if name.startswith(player)]
                grads = torch.autograd.grad(term, own, retain_graph=True)
                norms.append(sum(g.square().sum() for g in grads).sqrt().item())
                losses.append(term.item())
            return {"loss": losses[0] + losses[1], "grad_norm": math.hypot(*norms)}
        with self.precision():
            value = LOSSES[self.name](p, **self.data)
        value.backward()
        norm = sum(x.grad.square().sum() for x in p.values() if x.grad is not None).sqrt()
        return {"loss": value.item(), "grad_norm": norm.item()}

    def form(self, compiled: bool, channels_last: bool) -> dict[str, Any]:
        """Get ready to run steps: compiled or eager; the seconds until the first two are done."""
        p = {name: x.clone().requires_grad_() for name, x in self.start.items()}
        if channels_last:
            p = {n: x.detach().to(memory_format=torch.channels_last).requires_grad_() if x.ndim == 4 else x
                 for n, x in p.items()}  # fmt: skip
        # For these shapes, whatever others have been compiled before.
        torch.compiler.reset()
        wrap = functools.partial(torch.compile, dynamic=False) if compiled else lambda function: function
        makers = {"sample": self._sampling, "r3gan": self._playing}
        self.step = makers.get(self.name, self._descending)(p, wrap, channels_last)
        start = time.perf_counter()
        self.time(2)
        return {"first": time.perf_counter() - start}

    def time(self, steps: int) -> dict[str, Any]:
        """Seconds for so many steps, of the clock and of all processors."""
        self._wait()
        start, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.step()
        self._wait()
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}

    def _descending(self, p: Params, wrap: Callable, channels_last: bool) -> Callable[[], Any]:
        loss, adam = wrap(LOSSES[self.name]), self._adam(p.values())
        data = dict(self.data)
        if channels_last:
            data = {n: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for n, x in data.items()}
        normal = dict.fromkeys(("eps", "noise"), torch.randn_like)
        drawn = normal | dict.fromkeys(("t", "gumbel"), torch.rand_like)  # of which the largest is as likely to be any

        def step() -> None:
            fresh = {name: draw(data[name]) for name, draw in drawn.items() if name in data}
            with self.precision():
                value = loss(p, **data | fresh)
            adam.zero_grad(set_to_none=True)
            value.backward()
            adam.step()

        return step

    def _playing(self, p: Params, wrap: Callable, channels_last: bool) -> Callable[[], Any]:
        players = {who: {n: x for n, x in p.items() if n.startswith(who)} for who in ("critic", "generator")}
        adams = {who: self._adam(weights.values()) for who, weights in players.items()}
        x, code, gamma = self.data["x"], self.data["code"], self.settings["gamma"]
        make = wrap(generator)  # `torch.compile` has no second derivative, which the critic's penalties need
        if channels_last:
            x = x.to(memory_format=torch.channels_last)

        def step() -> None:
            for who, weights in players.items():
                with torch.set_grad_enabled(who == "generator"):
                    y = make(p, torch.randn_like(code))
                value = critic_loss(p, x.detach(), y, gamma) if who == "critic" else generator_loss(p, x, y)
                for weight, grad in zip(weights.values(), torch.autograd.grad(value, weights.values()), strict=True):
                    weight.grad = grad
                adams[who].step()

        return step

    def _sampling(self, p: Params, wrap: Callable, channels_last: bool) -> Callable[[], Any]:
        network, noise = wrap(dit), self.data["noise"]  # transformers have no channels to put last

        def step() -> None:
            with torch.inference_mode():
                self._sampled(network, p, torch.randn_like(noise))

        return step

    def _sampled(self, network: Callable[..., Tensor], p: Params, x: Tensor) -> Tensor:
        """Euler's steps from t = 1 to 0."""
        steps = self.settings["steps"]
        tables = {name: self.data[name] for name in ("places", "frequencies")}
        for i in range(steps):
            t = torch.full((len(x),), 1000 * (1 - i / steps), device=x.device)
            x = x - network(p, x, t, self.data["y"], **tables) / steps
        return x

    def _adam(self, weights: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(list(weights), lr=1e-3, fused=True)

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(x), device=self.device)

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


if __name__ == "__main__":
    serve(Worker(threads=int(sys.argv[1]), device=sys.argv[2]))
