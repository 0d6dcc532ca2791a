"""The adversarial model: one game over all modalities, in which the generator makes any of them from any others.

A step of training is k updates of the critics, each on its own part of the batch, and one of the generator (`game.py`),
compiled as one program. By default it is R3GAN's (Huang et al. 2025, arXiv:2501.05441): relativistic pairing with R1
and R2, and networks without any normalisation; what is new is that it is played over several modalities at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict
from jax import lax

from mmgen_jax.gan import game, spectral
from mmgen_jax.gan.augment import ADA, DiffAugment
from mmgen_jax.gan.critic import JOINT, JointCritic, labels
from mmgen_jax.gan.generator import SHARED, JointGenerator, draw_noise, further_noise
from mmgen_jax.gan.losses import Loss, RpGAN
from mmgen_jax.gan.networks import RANDOM, Architecture
from mmgen_jax.gan.networks.r3gan import R3GAN
from mmgen_jax.gan.penalties import R1, R2, Penalty
from mmgen_jax.gan.regularizers import LeCam, Moments, PathLength
from mmgen_jax.gan.relaxed import relaxed_shape, restored, shown
from mmgen_jax.modalities.given import answered
from mmgen_jax.nn.ways import between
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Metrics, Modality, Params, Stats, TrainState, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class GAN:
    """A joint model of `modalities`. Its parameters are {"generator", "critic"}: `mm.Players` are its optimisers.

    Attributes:
        modalities: what is modelled, by name; their order changes nothing. The widths of networks are their `features`.
        noise: numbers that say what all modalities share.
        own: numbers, for each modality, that say what is its own.
        width: of the code that all are made of, of the condition tokens, and of what critics see in a modality.
        loss: what the players minimise, such as `RpGAN()` or `Hinge()`.
        penalties: terms of the critics' loss, such as `R1(gamma=1.0)`; for each critic by itself.
        lecam: a further one, whose running means are in the state; None for none.
        path_length: a term of the generator's loss, for each modality by itself; None for none.
        augment: changes of what critics are shown, such as `DiffAugment(("image",))`; None for none.
        ada: how often, by how sure the critics are; None: always.
        networks: R3GAN, or another architecture.
        special: architectures of single modalities in place of that, such as {"audio": WaveGAN()}.
        decoders: networks of single modalities in place of the architecture's, code [B, Z] -> values [B, *shape].
        weights: of the critics' terms and of path lengths, by modality or "joint", 1 where none is given.
        mismatch: weight of mismatched examples among the joint critic's negatives.
        condition: how the generator reads what is given: as one code of each modality ("concatenation"), or of every
            part of them as well ("attention", see `attending.py`).
        projection: whether the joint critic also compares features of parts directly.
        auxiliary: weight of what critics of other modalities know of labels; 0 for none, and no such classifiers.
        contrastive: weight of how well parts of one example are told from those of others (`cooperation.py`); 0: none.
        smoothing: of the data's symbols, see `relaxed.py`.
        critic_steps: k; the batch is cut into so many parts, one for each.
        spectral: which players' kernels are divided by their spectral norm: "critic", "both", or None.
        dtype: what the networks compute in; parameters, losses and slopes are float32.

    Raises:
        ValueError: a field is outside its range, or names what is no modality.
    """

    modalities: Mapping[str, Modality]
    noise: int = 64
    own: int = 16
    width: int = 128
    loss: Loss = RpGAN()
    penalties: tuple[Penalty, ...] = (R1(), R2())
    lecam: LeCam | None = None
    path_length: PathLength | None = None
    augment: DiffAugment | None = None
    ada: ADA | None = None
    networks: Architecture = R3GAN()
    special: Mapping[str, Architecture] = FrozenDict()
    decoders: Mapping[str, nn.Module] = FrozenDict()
    weights: Mapping[str, float] = FrozenDict()
    mismatch: float = 1.0
    condition: Literal["concatenation", "attention"] = "concatenation"
    projection: bool = False
    auxiliary: float = 0.0
    contrastive: float = 0.0
    smoothing: float = 0.1
    critic_steps: int = 1
    spectral: Literal["critic", "both"] | None = None
    dtype: Literal["bfloat16", "float32"] = "float32"

    def __post_init__(self) -> None:
        for field in ("modalities", "special", "decoders", "weights"):  # frozen mappings, so that a model can be hashed
            object.__setattr__(self, field, FrozenDict(getattr(self, field)))
        for field, (fits, what) in self._allowed().items():
            if not fits:
                raise ValueError(f"{field} is {getattr(self, field)!r}, but must be {what}")
        named = {"special": self.special, "decoders": self.decoders, "weights": self.weights}
        named["augment"] = () if self.augment is None else self.augment.names
        for field, names in named.items():
            known = self.critics if field == "weights" else tuple(self.modalities)
            for name in names:
                if name not in known:
                    raise ValueError(f"{field} names {name!r}, but must name some of {list(known)}")
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ValueError(f"weights[{name!r}] is {weight}, but must be at least 0")

    def _allowed(self) -> dict[str, tuple[Any, str]]:
        """Whether each field fits, and what it must be."""
        several = len(self.modalities) > 1
        classifiable = several and labels(self.modalities)
        return {
            "modalities": (len(self.modalities) > 0 and JOINT not in self.modalities, f"at least one, none {JOINT!r}"),
            **{name: (getattr(self, name) >= 1, "at least 1") for name in ("noise", "own", "width")},
            "critic_steps": (self.critic_steps >= 1, "at least 1"),
            "mismatch": (self.mismatch >= 0, "at least 0"),
            "condition": (
                self.condition == "concatenation" or several and self.condition == "attention",
                '"concatenation", or "attention" with several modalities',
            ),
            "contrastive": (
                self.contrastive == 0 or several and self.contrastive > 0,
                "at least 0, and 0 with a single modality",
            ),
            "auxiliary": (
                self.auxiliary == 0 or classifiable and self.auxiliary > 0,
                "at least 0, and 0 without a label and another modality",
            ),
            "smoothing": (0 <= self.smoothing < 1, "in [0, 1)"),
            "spectral": (self.spectral in ("critic", "both", None), 'one of "critic", "both", None'),
            "ada": (self.ada is None or self.augment is not None, "None without augment"),
            "penalties": (isinstance(self.penalties, tuple), "a tuple"),
        }

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that can be generated: all."""
        return tuple(self.modalities)

    @property
    def critics(self) -> tuple[str, ...]:
        """The names of the critics: each modality's, and that of all together where there are several."""
        return (*self.modalities, JOINT) if len(self.modalities) > 1 else tuple(self.modalities)

    @property
    def architectures(self) -> dict[str, Architecture]:
        """Of every modality."""
        return {name: self.special.get(name, self.networks) for name in self.modalities}

    @property
    def generator_network(self) -> JointGenerator:
        """The generator with this model's sizes."""
        attends, dtype = self.condition == "attention", jnp.dtype(self.dtype)
        return JointGenerator(self.modalities, self.architectures, self.width, self.decoders, attends, dtype)

    @property
    def critic_network(self) -> JointCritic:
        """The critics with this model's sizes."""
        asked = self.projection, self.auxiliary > 0, self.contrastive > 0
        return JointCritic(self.modalities, self.architectures, self.width, *asked, jnp.dtype(self.dtype))

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters of both players, and what else is remembered between steps."""
        there = {name: jax.ShapeDtypeStruct((1,), jnp.bool_) for name in self.modalities}
        values = {name: jax.ShapeDtypeStruct((1, *m.shape), m.dtype) for name, m in self.modalities.items()}
        seen = {n: jax.ShapeDtypeStruct((1, *relaxed_shape(m)), jnp.float32) for n, m in self.modalities.items()}
        noise = jax.eval_shape(lambda: self.drawn(key, 1))
        params = {
            "generator": self.generator_network.lazy_init(fold_name(key, "generator"), noise, values, there)["params"],
            "critic": self.critic_network.lazy_init(fold_name(key, "critic"), seen, there)["params"],
        }
        stats: dict[str, Any] = spectral.begun(key, params, self.spectral)
        if self.lecam is not None:
            stats["lecam"] = {name: Moments(jnp.zeros(()), jnp.zeros(())) for name in self.critics}
        if self.path_length is not None:
            stats["path"] = {name: jnp.zeros(()) for name in self.modalities}
        if self.ada is not None:
            stats["ada"] = self.ada.start()
        return params, stats

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """k updates of the critics and one of the generator, each with noise of its own.

        Raises ValueError if the batch cannot be cut into k parts.
        """
        k, batch = self.critic_steps, batch.masked()
        if len(batch) % k:
            raise ValueError(f"a batch of {len(batch)} cannot be cut into critic_steps = {k} parts")
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, k, *x.shape[1:]), 1, 0), batch)

        def update(state: TrainState, inputs: tuple[Array, Batch]) -> tuple[TrainState, Metrics]:
            i, part = inputs
            return game.critic_update(self, tx, state, part, jax.random.fold_in(key, i), state.step * k + i)

        state, metrics = lax.scan(update, state, (jnp.arange(k), parts))
        first = jax.tree.map(lambda x: x[0], parts)
        state, more = game.generator_update(self, tx, state, first, jax.random.fold_in(key, k))
        return state.replace(step=state.step + 1), {**jax.tree.map(jnp.mean, dict(metrics)), **more}

    def drawn(self, key: Key, n: int) -> dict[str, Array]:
        """Noise of n examples: what all modalities share, [n, noise] under "", each one's own, [n, own], and that of
        places or layers, [n, *shape] under "name/0" and so on, for networks that take it."""
        shapes = {SHARED: (self.noise,)} | dict.fromkeys(self.modalities, (self.own,))
        for name in self.modalities.keys() - self.decoders.keys():
            shapes |= further_noise(name, self.modalities[name], self.architectures[name])
        return draw_noise(key, n, shapes)

    def made(self, params: Params, noise: Mapping[str, Array], given: Batch) -> dict[str, Array]:
        """All modalities, as a critic sees them, of the generator's parameters and a batch of what is given, masked."""
        out = self.generator(params)(noise, given.values, given.present)
        return {name: shown(self.modalities[name], y, self.smoothing) for name, y in out.items()}

    def made_of(self, params: Params, name: str, style: Array, noise: Mapping[str, Array]) -> Array:
        """One modality, as a critic sees it, of what drives its network (`JointGenerator.styles`)."""
        return shown(self.modalities[name], self.generator(params, "make")(name, style, noise), self.smoothing)

    def generator(self, weights: Params, method: str = "__call__") -> Callable[..., Any]:
        """The generator with these weights (see `used`): `JointGenerator`, or one of its methods."""
        return functools.partial(self.generator_network.apply, {"params": weights}, method=method)

    def judge(self, weights: Params, method: str = "__call__", key: Key | None = None) -> Callable[..., Any]:
        """The critics with these weights (see `used`): all of `JointCritic`, or one of its methods.

        key: of what critics draw themselves, such as shuffled phases, at every call the same; None: nothing is.
        """
        random = None if key is None else {RANDOM: key}
        return functools.partial(self.critic_network.apply, {"params": weights}, method=method, rngs=random)

    def used(self, player: str, params: Params, stats: Stats) -> Params:
        """What a player's networks are applied to: its parameters, or these over their spectral norms."""
        return spectral.used(player, params, stats)

    def weight(self, critic: str) -> float:
        """Of a critic's terms."""
        return self.weights.get(critic, 1.0)

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
    ) -> dict[str, Array]:
        """n examples of `targets` (default: all), given some modalities: see `modalities.given.answered`.

        Raises:
            ValueError: a name is no modality, or what is given has the wrong shape.
        """

        def make(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
            return generate(self, wanted, variables, batch, self.drawn(key, n))

        return answered(self.modalities, self.makes, n, given, targets, make)

    def between(self, variables: Variables, key: Key, n: int, shares: Array) -> dict[str, Array]:
        """What is made of noise at shares [n] of the ways between n pairs, which are the same for the same key."""
        ends = (self.drawn(part, n) for part in jax.random.split(key))
        noise = jax.tree.map(jax.vmap(between), *ends, dict.fromkeys(self.drawn(key, n), shares))
        return generate(self, self.makes, variables, Batch.nothing(self.modalities, n), noise)


@functools.partial(jax.jit, static_argnames=("model", "wanted"))
def generate(
    model: GAN, wanted: tuple[str, ...], variables: Variables, batch: Batch, noise: Mapping[str, Array]
) -> dict[str, Array]:
    """The modalities `wanted`, [B, *shape] each: one program for every set of given ones."""
    params = model.used("generator", variables["params"]["generator"], variables)
    made = model.made(params, noise, batch.masked())
    return {name: restored(model.modalities[name], made[name]) for name in wanted}
