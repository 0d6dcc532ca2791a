"""The rules of the game: what one update of each player is.

Of every example of the batch some of its present modalities are given, drawn anew each time; the generator makes the
others from them and from noise; critics compare x, the example as it is, with y, the same with what was made in place:

    critics      sum_c mean_c [ L_D(D_c(x), D_c(y)) + penalties_c ] + v mean [ L_D(D(x), D(x')) ]                (1)
    generator    sum_c mean_c [ L_G(D_c(x), D_c(y)) ] + path lengths                                            (2)

c runs over the critics of single modalities and D, that of all together; mean_c is over the examples with something
that this critic can judge: a part that is present and was made. x' are mismatched examples: real parts, some of which
are another's, so that D has to ask whether parts belong together (as in Reed et al. 2016, arXiv:1605.05396).

What both players want besides, such as that parts show classes, is in `cooperation.py`.

Each player's gradient is by its own parameters alone. Both move through one optax transformation, `moved`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import flax.struct
import jax
import jax.numpy as jnp
import optax

from mmgen_jax.gan import cooperation, spectral
from mmgen_jax.gan.critic import JOINT
from mmgen_jax.gan.losses import mean_of
from mmgen_jax.gan.penalties import taken
from mmgen_jax.gan.regularizers import LeCam, Moments
from mmgen_jax.gan.relaxed import relaxed
from mmgen_jax.rng import fold_name
from mmgen_jax.train.step import batch_mean, device_axes
from mmgen_jax.types import Array, Batch, Key, Metrics, Params, Stats, TrainState

if TYPE_CHECKING:
    from mmgen_jax.gan.model import GAN

Relaxed = dict[str, Array]


@flax.struct.dataclass
class Round:
    """What critics compare: examples [B, *relaxed_shape] by modality, and which parts are present, and were given."""

    real: Relaxed
    fake: Relaxed
    present: dict[str, Array]
    given: dict[str, Array]

    def judged(self, critic: str) -> Array:
        """The examples that a critic can say something of, bool [B]."""
        made = {name: there & ~self.given[name] for name, there in self.present.items()}
        return jnp.stack(list(made.values())).any(0) if critic == JOINT else made[critic]


def critic_update(
    model: GAN, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key, update: Array
) -> tuple[TrainState, Metrics]:
    """One step of the critics, by (1), on a batch that is `masked()`; `update` counts their steps."""
    makers = model.used("generator", state.params["generator"], state.stats)
    play = played(model, makers, batch, fold_name(key, "play"), state.stats)

    def loss(params: Params) -> tuple[Array, tuple[Stats, Metrics]]:
        return critics_loss(model, model.used("critic", params, state.stats), state.stats, play, key, update)

    (value, (stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(state.params["critic"])
    state = moved(tx, state.replace(stats=iterated(stats, state.params, "critic")), grads, "critic")
    return state, {"loss": value, "grad_norm/critic": optax.tree.norm(grads), **metrics}


def generator_update(
    model: GAN, tx: optax.GradientTransformation, state: TrainState, batch: Batch, key: Key
) -> tuple[TrainState, Metrics]:
    """One step of the generator, by (2), on a batch that is `masked()`."""

    critics = model.used("critic", state.params["critic"], state.stats)

    def loss(params: Params) -> tuple[Array, tuple[Stats, Metrics]]:
        weights = model.used("generator", params, state.stats)
        play = played(model, weights, batch, fold_name(key, "play"), state.stats)
        value, metrics = generator_loss(model, critics, play, fold_name(key, "critics"))
        more, stats = path_lengths(model, weights, state.stats, batch, fold_name(key, "path"), state.step)
        return value + more, (stats, metrics)

    (value, (stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(state.params["generator"])
    state = moved(tx, state.replace(stats=iterated(stats, state.params, "generator")), grads, "generator")
    return state, {"generator": value, "grad_norm/generator": optax.tree.norm(grads), **metrics}


def critics_loss(
    model: GAN, weights: Params, stats: Stats, play: Round, key: Key, update: Array
) -> tuple[Array, tuple[Stats, Metrics]]:
    """Equation (1) of critics with these weights, the new statistics, and what to log."""
    x, y, judge = play.real, play.fake, model.judge(weights, "judge")
    own = fold_name(key, "critics")  # the same for all that is looked at, so that differences are those of examples
    features = model.judge(weights, "features", own)(x)
    everything = functools.partial(model.judge(weights, key=own), present=play.present, given=play.given)
    real, fake = judge(features, play.present, play.given), everything(y)
    terms = {name: model.loss.critic(real[name], fake[name], mean_of(play.judged(name))) for name in real}
    for i, penalty in enumerate(model.penalties):
        value = functools.partial(penalty, everything, x, y, fold_name(key, f"penalty/{i}"))
        more = taken(penalty, update, value, jax.tree.map(jnp.zeros_like, real))
        terms = jax.tree.map(jnp.add, terms, more)
    if model.lecam is not None:
        terms = {n: term + model.lecam(real[n], fake[n], stats["lecam"][n]) for n, term in terms.items()}
        stats = {**stats, "lecam": after(model.lecam, stats["lecam"], play, real, fake)}
    if model.ada is not None:
        whole = real[JOINT if JOINT in real else next(iter(real))]
        stats = {**stats, "ada": model.ada.after(stats["ada"], jax.lax.stop_gradient(whole), global_size(whole))}
    total = sum((model.weight(n) * mean_of(play.judged(n))(term) for n, term in terms.items()), jnp.zeros(()))
    metrics = {f"margin/{n}": mean_of(play.judged(n))(real[n] - fake[n]) for n in real}
    more, told = cooperation.of_critics(model, weights, play, features)
    total, metrics = total + more, metrics | told
    if JOINT in real and model.mismatch:
        wrong = mismatched(features, play.present, fold_name(key, "mismatch"))
        worse = model.judge(weights, "joint")(wrong, play.present, play.given)
        total = total + model.mismatch * batch_mean(model.loss.critic(real[JOINT], worse))
        metrics |= {"margin/mismatched": batch_mean(real[JOINT] - worse)}
    return total, (stats, metrics)


def global_size(x: Array) -> int:
    """The rows of x on all devices together."""
    return len(x) * math.prod(jax.lax.axis_size(axis) for axis in device_axes(x))


def after(lecam: LeCam, moments: dict[str, Moments], play: Round, real: Relaxed, fake: Relaxed) -> dict[str, Moments]:
    """The running means of every critic's values after a batch of them."""

    def of(name: str) -> Moments:
        mean = mean_of(play.judged(name))
        return lecam.update(moments[name], mean(real[name]), mean(fake[name]))

    return jax.lax.stop_gradient({name: of(name) for name in moments})


def generator_loss(model: GAN, weights: Params, play: Round, key: Key | None = None) -> tuple[Array, Metrics]:
    """Equation (2) by critics with these weights, which draw by `key` if they draw, and each one's part in it."""
    features = [model.judge(weights, "features", key)(x) for x in (play.real, play.fake)]
    real, fake = (model.judge(weights, "judge")(f, play.present, play.given) for f in features)
    parts = {}
    for name in real:
        mean = mean_of(play.judged(name))
        parts[name] = mean(model.loss.generator(real[name], fake[name], mean))
    total = sum((model.weight(name) * part for name, part in parts.items()), jnp.zeros(()))
    metrics = {f"generator/{name}": part for name, part in parts.items()} if len(parts) > 1 else {}
    more, told = cooperation.of_generator(model, weights, play, *features)
    return total + more, metrics | told


def path_lengths(model: GAN, weights: Params, stats: Stats, batch: Batch, key: Key, step: Array) -> tuple[Array, Stats]:
    """What they add to (2), where they are asked for, of everything made of a random part of a batch; the statistics.

    Lazily, like penalties; between, nothing is made.
    """
    if model.path_length is None:
        return jnp.zeros(()), stats
    every = model.path_length.every

    def measured() -> tuple[Array, dict[str, Array]]:
        given = Batch(batch.values, draw_given(fold_name(key, "given"), batch.present)).masked()
        noise, total, means = model.drawn(key, len(batch)), jnp.zeros(()), {}
        for name, style in model.generator(weights, "styles")(noise, given.values, given.present).items():
            make = functools.partial(model.made_of, weights, name, noise=noise)
            length, means[name] = model.path_length(make, style, fold_name(key, name), stats["path"][name])
            total = total + every * model.weight(name) * batch_mean(length)
        return total, means

    total, means = jax.lax.cond(step % every == 0, measured, lambda: (jnp.zeros(()), stats["path"]))
    return total, {**stats, "path": means}


def played(model: GAN, params: Params, batch: Batch, key: Key, stats: Stats) -> Round:
    """The examples of a batch that is `masked()`, and what a generator with these weights makes of their parts.

    Both as critics are shown them: if they are augmented, then alike.
    """
    given = draw_given(fold_name(key, "given"), batch.present)
    made = model.made(params, model.drawn(key, len(batch)), Batch(batch.values, given).masked())
    real = {name: relaxed(m, batch.values[name], model.smoothing) for name, m in model.modalities.items()}
    real = Batch(real, batch.present).masked()
    # What was given stands in the made example as it is, and what is not present is nothing in both.
    fake = Batch(Batch(real.values, given).completed(made), batch.present).masked()
    x, y = real.values, fake.values
    if model.augment is not None:
        share = stats["ada"].p if model.ada is not None else 1.0
        x, y = (model.augment(fold_name(key, "augment"), example, share) for example in (x, y))
    return Round(x, y, batch.present, given)


def draw_given(key: Key, present: Mapping[str, Array]) -> dict[str, Array]:
    """Of each example a random set of its present parts, any number of them but all being equally likely."""
    there = jnp.stack([present[name] for name in sorted(present)])
    order, number = jax.random.split(key)
    draws = jnp.where(there, jax.random.uniform(order, there.shape), 2)
    rank = (draws[:, None] > draws[None]).sum(1)  # among the present ones of its example
    count = jnp.floor(jax.random.uniform(number, (there.shape[1],)) * there.sum(0))
    given = there & (rank < count[None])
    return dict(zip(sorted(present), given, strict=True))


def mismatched(x: Relaxed, present: Mapping[str, Array], key: Key) -> Relaxed:
    """Examples, or features of their parts [B, ...], some parts of which, but not all, are those of the one before.

    Where that one has no such part, the example keeps its own.
    """
    names = sorted(x)
    n = len(x[names[0]])
    parts = draw_some(key, n, len(names))
    moved = {}
    for i, name in enumerate(names):
        change = parts[:, i] & present[name] & jnp.roll(present[name], 1)
        moved[name] = jnp.where(change.reshape(-1, *(1,) * (x[name].ndim - 1)), jnp.roll(x[name], 1, axis=0), x[name])
    return moved


def draw_some(key: Key, n: int, parts: int) -> Array:
    """n random subsets of `parts`, neither empty nor all, every size being equally likely: bool [n, parts]."""
    order, number = jax.random.split(key)
    rank = jnp.argsort(jax.random.uniform(order, (n, parts)), axis=1)
    return rank < jax.random.randint(number, (n, 1), 1, max(parts, 2))


def iterated(stats: Stats, params: Params, player: str) -> Stats:
    """The statistics after one more iteration for the spectral norms of a player, if it has any."""
    if player not in stats.get("spectral", {}):
        return stats
    vectors = spectral.iterated(params[player], stats["spectral"][player])
    return {**stats, "spectral": {**stats["spectral"], player: vectors}}


def moved(tx: optax.GradientTransformation, state: TrainState, grads: Params, player: str) -> TrainState:
    """The state after `player`, of {"generator", "critic"}, has moved by its gradient and the other has not.

    tx is that of all parameters: `train.players.Players` makes one that has a transformation for each player, but any
    other does. What it keeps of the other player (whose name is in the path to it) stays as it was.
    """
    others = {name for name in state.params if name != player}
    whole = {name: grads if name == player else optax.tree.zeros_like(state.params[name]) for name in state.params}
    updates, opt = tx.update(whole, state.opt, state.params)

    def keep(path: tuple, old: Array, new: Array) -> Array:
        return old if any(getattr(entry, "key", None) in others for entry in path) else new

    opt = jax.tree_util.tree_map_with_path(keep, state.opt, opt)
    params = {**state.params, player: optax.apply_updates(state.params[player], updates[player])}
    return state.replace(params=params, opt=opt)
