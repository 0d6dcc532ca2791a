"""Translation: an example of one modality becomes one of another in the same places, by a game.

    y = G(s, z)                                          the target t that is made of a source s                 (1)

    critic      mean over patches of L_D(D(t), D(y))                                                             (2)
    generator   mean over patches of L_G(D(t), D(y))
                + l1 |t - y| + matching sum_i |f_i(t) - f_i(y)|                             of pairs             (3)
                + cycle |F(y, z') - s| + identity |G(t, z) - t|                             without              (4)

|.| is the mean of absolute differences. Of pairs there is one way, and the critic sees the source beside what it
judges: pix2pix (Isola et al. 2017, arXiv:1611.07004) and SPADE (Park et al. 2019, arXiv:1903.07291), f_i being what its
layers see (Wang et al. 2018, arXiv:1711.11585). Without pairs there is a way back, F, with a critic of its own, and (2)
to (4) hold for both ways; critics see targets alone: CycleGAN (Zhu et al. 2017, arXiv:1703.10593), without its pool of
earlier pictures. `presets.py` has all three as published.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from mmgen_jax.gan import spectral
from mmgen_jax.gan.critic import precise
from mmgen_jax.gan.game import iterated, moved
from mmgen_jax.gan.generator import draw_noise
from mmgen_jax.gan.losses import Loss, Mean, NonSaturating, mean_of
from mmgen_jax.gan.networks import Translator
from mmgen_jax.gan.networks.patches import Patches
from mmgen_jax.gan.networks.unet import UNet
from mmgen_jax.gan.relaxed import relaxed, relaxed_shape, restored, shown
from mmgen_jax.modalities.given import answered
from mmgen_jax.rng import fold_name
from mmgen_jax.types import Array, Batch, Key, Metrics, Modality, Params, Stats, TrainState, Variables

Examples = Mapping[str, Array]  # as critics see them, [B, *relaxed_shape], by modality
Seen = list[list[Array]]  # what a critic's layers see, its values last, at every scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translation:
    """A game from `source` to `target`. Its parameters are {"generator", "critic"}: `mm.Players` are its optimisers.

    Attributes:
        modalities: two, of the same space. The widths of the networks that make and judge one are its `features`.
        source, target: their names.
        paired: whether the two parts of an example belong together; else there is a way back as well.
        noise: numbers of z; 0 for one answer only.
        networks: of generators, such as `UNet()`, `ResNet()`, `SPADE()`.
        critics: of patches.
        loss: what the players minimise.
        l1, matching: weights of (3), 0 without pairs.
        cycle, identity: weights of (4), 0 with pairs.
        smoothing: of the data's symbols, see `relaxed.py`.
        spectral: which players' kernels are divided by their spectral norm: "critic", "both", or None.
        dtype: what the networks compute in; parameters and losses are float32.

    Raises:
        ValueError: a field is outside its range.
    """

    modalities: Mapping[str, Modality]
    source: str
    target: str
    paired: bool = True
    noise: int = 0
    networks: Translator = UNet()
    critics: Patches = Patches()
    loss: Loss = NonSaturating()
    l1: float = 0.0
    matching: float = 0.0
    cycle: float = 0.0
    identity: float = 0.0
    smoothing: float = 0.1
    spectral: Literal["critic", "both"] | None = None
    dtype: Literal["bfloat16", "float32"] = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", FrozenDict(self.modalities))  # so that a model can be hashed
        if {self.source, self.target} != set(self.modalities) or len(self.modalities) != 2:
            named = f"source is {self.source!r} and target {self.target!r}"
            raise ValueError(f"{named}, but they must be the two modalities, which are {list(self.modalities)}")
        shapes = [relaxed_shape(self.modalities[name]) for name in (self.source, self.target)]
        if len({shape[:-1] for shape in shapes}) > 1 or len(shapes[0]) < 2:
            raise ValueError(f"modalities have the shapes {shapes}, but must be of one space")
        for field, (fits, what) in self._allowed(shapes[0] == shapes[1]).items():
            if not fits:
                raise ValueError(f"{field} is {getattr(self, field)!r}, but must be {what}")

    def _allowed(self, alike: bool) -> dict[str, tuple[bool, str]]:
        """Whether each field fits, and what it must be."""

        def only(weight: float, here: bool) -> bool:
            return weight == 0 or here and weight > 0

        return {
            "noise": (self.noise >= 0, "at least 0"),
            "l1": (only(self.l1, self.paired), "at least 0, and 0 without pairs"),
            "matching": (only(self.matching, self.paired), "at least 0, and 0 without pairs"),
            "cycle": (only(self.cycle, not self.paired), "at least 0, and 0 with pairs"),
            "identity": (
                only(self.identity, not self.paired and alike),
                "at least 0, and 0 with pairs or where source and target have different channels",
            ),
            "smoothing": (0 <= self.smoothing < 1, "in [0, 1)"),
            "spectral": (self.spectral in ("critic", "both", None), 'one of "critic", "both", None'),
        }

    @property
    def ways(self) -> dict[str, str]:
        """What each target is made of."""
        there = {self.target: self.source}
        return there if self.paired else there | {self.source: self.target}

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that can be generated."""
        return tuple(self.ways)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The modalities that they are made of."""
        return tuple(self.ways.values())

    def generator(self, t: str) -> nn.Module:
        """The network that makes a target."""
        modality = self.modalities[t]
        return self.networks.translator(relaxed_shape(modality)[-1], modality.features, jnp.dtype(self.dtype))

    def init(self, key: Key) -> tuple[Params, Stats]:
        """Fresh parameters of both players, and what else is remembered between steps."""
        x = {n: jax.ShapeDtypeStruct((1, *relaxed_shape(m)), jnp.float32) for n, m in self.modalities.items()}
        code = jax.ShapeDtypeStruct((1, self.noise), jnp.float32)
        params: Params = {"generator": {}, "critic": {}}
        for t, s in self.ways.items():
            own, seen = fold_name(key, t), jax.eval_shape(functools.partial(self.beside, t), x, x[t])
            made = self.generator(t).lazy_init(fold_name(own, "generator"), x[s], code)
            judged = self._critic(t).lazy_init(fold_name(own, "critic"), seen)
            params["generator"][t], params["critic"][t] = made["params"], judged["params"]
        return params, spectral.begun(key, params, self.spectral)

    def step(
        self, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Metrics]:
        """One update of the critics and one of the generators, by what is present of both modalities."""
        x, there = self.seen(batch), mean_of(jnp.stack([batch.present[n] for n in self.modalities]).all(0))
        makers = spectral.used("generator", state.params["generator"], state.stats)
        made = {t: self.made(makers, t, x[s], fold_name(key, f"critics/{t}")) for t, s in self.ways.items()}

        def critics(params: Params) -> Array:
            weights = spectral.used("critic", params, state.stats)
            return sum((critic_loss(self, weights, t, x, y, there) for t, y in made.items()), jnp.zeros(()))

        value, grads = jax.value_and_grad(critics)(state.params["critic"])
        stats = iterated(state.stats, state.params, "critic")
        state = moved(tx, state.replace(stats=stats), grads, "critic")
        judges = spectral.used("critic", state.params["critic"], state.stats)

        def generators(params: Params) -> tuple[Array, Metrics]:
            weights = spectral.used("generator", params, state.stats)
            terms = generator_terms(self, weights, judges, x, there, fold_name(key, "generators"))
            return sum((self.weight(name) * term for name, term in terms.items()), jnp.zeros(())), terms

        (total, terms), grads = jax.value_and_grad(generators, has_aux=True)(state.params["generator"])
        stats = iterated(state.stats, state.params, "generator")
        state = moved(tx, state.replace(stats=stats, step=state.step + 1), grads, "generator")
        return state, {"loss": value, "generator": total, **{f"generator/{n}": term for n, term in terms.items()}}

    def seen(self, batch: Batch) -> dict[str, Array]:
        """The examples of a batch as critics see them; what is not present is nothing."""
        batch = batch.masked()
        x = {name: relaxed(m, batch.values[name], self.smoothing) for name, m in self.modalities.items()}
        return Batch(x, batch.present).masked().values

    def made(self, weights: Params, t: str, s: Array, key: Key) -> Array:
        """Equation (1): a target of its source, both as critics see them, by generators with these weights."""
        code = draw_noise(key, len(s), {t: (self.noise,)})[t]
        return shown(self.modalities[t], self.generator(t).apply({"params": weights[t]}, s, code), self.smoothing)

    def judged(self, weights: Params, t: str, x: Examples, y: Array) -> Seen:
        """What critics with these weights see of y, which is a target of x."""
        seen = self._critic(t).apply({"params": weights[t]}, self.beside(t, x, y))
        return jax.tree.map(precise, seen)

    def beside(self, t: str, x: Examples, y: Array) -> Array:
        """What a critic is shown: y, of pairs with its source beside it."""
        return jnp.concatenate([x[self.ways[t]], y], axis=-1) if self.paired else y

    def weight(self, term: str) -> float:
        """Of a term of the generators' loss; that of the game itself has 1."""
        return getattr(self, term, 1.0)

    def sample(
        self,
        variables: Variables,
        key: Key,
        n: int,
        *,
        given: Mapping[str, Array] | Batch | None = None,
        targets: tuple[str, ...] | None = None,
    ) -> dict[str, Array]:
        """n examples of `targets` (default: all that can be made): see `modalities.given.answered`.

        Where the source of a target is not given, it is made of nothing: zeros.

        Raises:
            ValueError: a name is no modality, or what is given has the wrong shape.
        """

        def make(wanted: tuple[str, ...], batch: Batch) -> dict[str, Array]:
            return translated(self, wanted, variables, batch, key)

        return answered(self.modalities, self.makes, n, given, targets, make)

    def _critic(self, t: str) -> nn.Module:
        return self.critics.critic(self.modalities[t].features, jnp.dtype(self.dtype))


@functools.partial(jax.jit, static_argnames=("model", "wanted"))
def translated(
    model: Translation, wanted: tuple[str, ...], variables: Variables, batch: Batch, key: Key
) -> dict[str, Array]:
    """The modalities `wanted`, [B, *shape] each, of what is present of their sources."""
    x, weights = model.seen(batch), spectral.used("generator", variables["params"]["generator"], variables)
    made = {t: model.made(weights, t, x[model.ways[t]], fold_name(key, t)) for t in wanted}
    return {t: restored(model.modalities[t], y) for t, y in made.items()}


def critic_loss(model: Translation, weights: Params, t: str, x: Examples, y: Array, there: Mean) -> Array:
    """Equation (2) of one target, averaged over the examples that are `there`."""
    real, fake = (model.judged(weights, t, x, example) for example in (x[t], y))
    return there(patchwise(model.loss.critic, real, fake))


def generator_terms(
    model: Translation, weights: Params, judges: Params, x: Examples, there: Mean, key: Key
) -> dict[str, Array]:
    """The terms of (3) or (4) that have a weight, without it, averaged over examples and summed over targets."""
    parts = [terms_of(model, weights, judges, t, x, fold_name(key, t)) for t in model.ways]
    return jax.tree.map(lambda *terms: sum(there(term) for term in terms), *parts)


def terms_of(model: Translation, weights: Params, judges: Params, t: str, x: Examples, key: Key) -> dict[str, Array]:
    """Those of one target, [B] each."""
    s = model.ways[t]
    y = model.made(weights, t, x[s], key)
    real, fake = (model.judged(judges, t, x, example) for example in (x[t], y))
    terms = {"adversarial": patchwise(model.loss.generator, real, fake)}
    if model.l1:
        terms["l1"] = apart(x[t], y)
    if model.matching:
        terms["matching"] = unmatched(real, fake)
    if model.cycle:
        terms["cycle"] = apart(x[s], model.made(weights, s, y, fold_name(key, "back")))
    if model.identity:
        terms["identity"] = apart(x[t], model.made(weights, t, x[t], fold_name(key, "same")))
    return terms


def patchwise(loss: Callable[[Array, Array], Array], real: Seen, fake: Seen) -> Array:
    """A loss of values, averaged over patches, and over scales: [B]."""
    parts = [loss(x[-1], y[-1]) for x, y in zip(real, fake, strict=True)]
    return sum(part.reshape(len(part), -1).mean(1) for part in parts) / len(parts)


def unmatched(real: Seen, fake: Seen) -> Array:
    """|f_i(t) - f_i(y)| summed over layers and averaged over scales, [B]."""
    layers = [(f, g) for x, y in zip(real, fake, strict=True) for f, g in zip(x[:-1], y[:-1], strict=True)]
    return sum(apart(f, g) for f, g in layers) / len(real)


def apart(x: Array, y: Array) -> Array:
    """The mean of absolute differences, [B]."""
    return jnp.abs(x - y).reshape(len(x), -1).mean(1)
