"""MoCoGAN's networks (Tulyakov et al. 2018, arXiv:1707.04993): clips as what is there, and how it moves.

    m_t = GRU(m_{t-1}, e_t),    m_0, e_t ~ N(0, 1)                     motion                                 (1)
    y_t = G([c; m_t])                                                  every frame of the code c              (2)
    D(y) = F_frame(y_t) + F_clip(y),    t drawn anew each time         what is seen of one frame, and of all  (3)

c, the content, is the same in all frames. Any architecture makes and judges the frames, and another one judges whole
clips, with time as a further axis of space. What is not a clip (of three axes, the first of which is time) has the
networks of a frame.

Not as published: the two critics, each with a loss of its own, are here two parts of one, so that whatever loss or
penalty is chosen holds for both. What kind of motion it is to be is not drawn: it is in the code, if it is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmgen_jax.gan.networks import RANDOM, Architecture, Noisy
from mmgen_jax.gan.networks.dcgan import DCGAN
from mmgen_jax.types import Array

CLIP = 4  # axes of a clip's shape, channels among them


@dataclasses.dataclass(frozen=True)
class MoCoGAN:
    """The networks of clips.

    Attributes:
        frames: of each frame, and of what is no clip.
        clips: of the critic that sees a clip as a whole.
        motion: numbers of noise of each frame, and of m_t.
    """

    frames: Architecture = DCGAN()
    clips: Architecture = DCGAN()
    motion: int = 10

    def __post_init__(self) -> None:
        if self.motion < 1:
            raise ValueError(f"MoCoGAN: motion is {self.motion}, but must be at least 1")

    def generator(self, shape: Sequence[int], features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, Z] and the noise of `noise` -> [B, *shape]."""
        if len(shape) != CLIP:
            return self.frames.generator(shape, features, dtype)
        return Generator(self, tuple(shape), features, dtype)

    def critic(self, outputs: int, features: int, dtype: Any = jnp.float32) -> nn.Module:
        """[B, *shape] -> [B, outputs]."""
        return Critic(self, outputs, features, dtype)

    def noise(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """m_0 and e_t as rows of one array, and what noise the frames take."""
        clip = len(shape) == CLIP
        further = self.frames.noise(shape[1:] if clip else shape) if isinstance(self.frames, Noisy) else ()
        return ((1 + shape[0], self.motion), *((shape[0], *n) for n in further)) if clip else further


class Generator(nn.Module):
    """Equations (1) and (2): code [B, Z], noise [B, 1 + F, motion], that of frames [B, F, *n] -> [B, F, *shape]."""

    form: MoCoGAN
    shape: tuple[int, ...]
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, code: Array, motion: Array, *noise: Array) -> Array:
        count, *shape = self.shape
        motion = motion.astype(self.dtype)
        cell = nn.GRUCell(self.form.motion, dtype=self.dtype)
        moves = nn.RNN(cell)(motion[:, 1:], initial_carry=motion[:, 0])
        content = jnp.broadcast_to(code[:, None].astype(self.dtype), (len(code), count, code.shape[-1]))
        codes, *noise = (x.reshape(-1, *x.shape[2:]) for x in (jnp.concatenate([content, moves], axis=-1), *noise))
        y = self.form.frames.generator(shape, self.features, self.dtype)(codes, *noise)
        return y.reshape(len(code), count, *shape)


class Critic(nn.Module):
    """Equation (3), [B, *shape] -> [B, outputs]; the frame is the middle one where there are no random numbers."""

    form: MoCoGAN
    outputs: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        frames = self.form.frames.critic(self.outputs, self.features, self.dtype)
        if x.ndim != 1 + CLIP:
            return frames(x)
        clips = self.form.clips.critic(self.outputs, self.features, self.dtype)
        b, count = x.shape[:2]
        drawn = self.has_rng(RANDOM)
        t = jax.random.randint(self.make_rng(RANDOM), (b,), 0, count) if drawn else jnp.full(b, count // 2)
        return frames(x[jnp.arange(b), t]) + clips(x)
