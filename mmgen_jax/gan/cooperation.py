"""What both players want, each for its own examples: that parts tell of one another.

    classes      sum_{m, n} mean [ -log p(x_n | x_m) ]                          n a label                         (1)
               + sum_{m, n} mean [ -sum_k p(k | x_m) log y_nk ]                 of the generator alone            (2)
               + sum_n KL( mean x_n || mean y_n )                               of what is made of nothing        (3)
    contrast     sum_{m < n} mean [ InfoNCE(e_m(x_m), e_n(x_n)) ]                                                 (4)
               + sum_m mean [ InfoNCE(e_m(y_m), e_m(x_m)) ]                     of the generator alone            (5)

The critics learn from real examples which classes and which parts go together, (5) and (6) of `critic.py`; the
generator, which cannot change what they know, by (1) and (4) of made ones y that its own do. (2): a label y_n that is
made is as probable as they find it by each other part, given or made, whose p is a constant there: unlike (1), whose
slope vanishes where a made label is sure of a wrong class, that corrects it (distillation: Hinton et al. 2015,
arXiv:1503.02531). By (1) and (2) alone the generator makes of nothing what is most easily told, one or two classes; by
(3), after the balanced classes of Springenberg 2016 (CatGAN, arXiv:1511.06390), each is as frequent as among the
examples. (5): what is made of a condition is like the example that had it.

(1) Odena et al. 2017, arXiv:1610.09585. (4) and (5) Zhang et al. 2021 (XMC-GAN, arXiv:2101.04702), of whole modalities;
others of a batch are what each is told from. A weight that is too large makes the generator exaggerate: of numbers
about -1 and 1 by a label, the upper ones came to lie about 1.2 with a weight of contrast of 0.1, and about 1.8 with 0.3
and attention (1,000 steps, one run of each).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from mmgen_jax.gan.contrastive import info_nce
from mmgen_jax.gan.losses import mean_of
from mmgen_jax.types import Array, Metrics, Params

if TYPE_CHECKING:
    from mmgen_jax.gan.game import Round
    from mmgen_jax.gan.model import GAN

Parts = Mapping[str, Array]  # by modality
TINY = 1e-30  # the least probability of which a logarithm is taken


def of_critics(model: GAN, weights: Params, play: Round, features: Parts) -> tuple[Array, Metrics]:
    """(1) and (4) of real examples, by critics with these weights that see these `features` of them: sum, and parts."""
    metrics, judge = {}, model.judge
    if model.auxiliary:
        logits = judge(weights, "classes")(features)
        metrics["classes"] = unknown(model, logits, play.real, play.present, play.present)
    if model.contrastive:
        metrics["contrast"] = unlike(model, judge(weights, "embeddings")(features), play.present, play.present)
    return weighed(model, metrics), metrics


def of_generator(model: GAN, weights: Params, play: Round, real: Parts, fake: Parts) -> tuple[Array, Metrics]:
    """(1) to (5) of made examples, by critics that see these features of real and of made ones."""
    metrics, judge = {}, model.judge
    made = {name: play.judged(name) for name in play.fake}
    if model.auxiliary:
        logits = judge(weights, "classes")(fake)
        shown = unknown(model, logits, play.fake, made, play.present)
        even = unbalanced(model, play, logits)
        metrics["classes"] = shown + distilled(model, logits, play.fake, made, play.present) + even
    if model.contrastive:
        x, y = (judge(weights, "embeddings")(features) for features in (real, fake))
        told = jnp.stack(list(play.given.values())).any(0)
        again = {name: there & told for name, there in made.items()}
        metrics["contrast"] = unlike(model, y, made, play.present) + unfaithful(model, y, x, again)
    return weighed(model, metrics), {f"generator/{name}": x for name, x in metrics.items()}


def weighed(model: GAN, metrics: Metrics) -> Array:
    """The terms times the weights that the model has for them."""
    weights = {"classes": model.auxiliary, "contrast": model.contrastive}
    return sum((weights[name] * x for name, x in metrics.items()), jnp.zeros(()))


def unknown(model: GAN, logits: Mapping[str, Parts], x: Parts, seen: Parts, present: Parts) -> Array:
    """Equation (1) over examples of which m is `seen` and n present, by logits of n from m.

    A label that is not sure, as made ones are, counts as all of its classes by their probabilities.
    """
    total = jnp.zeros(())
    for m, labels in logits.items():
        for n, of in labels.items():
            nats = -(x[n] * jax.nn.log_softmax(of)).sum(-1)
            total = total + model.weight(m) * mean_of(seen[m] & present[n])(nats)
    return total


def distilled(model: GAN, logits: Mapping[str, Parts], y: Parts, made: Parts, present: Parts) -> Array:
    """Equation (2) over examples of which n is made and m present, by logits of n from m; y are probabilities."""
    total = jnp.zeros(())
    for m, labels in logits.items():
        for n, of in labels.items():
            belief = jax.lax.stop_gradient(jax.nn.softmax(of))
            nats = -(belief * jnp.log(jnp.maximum(y[n], TINY))).sum(-1)
            total = total + model.weight(n) * mean_of(present[m] & made[n])(nats)
    return total


def unbalanced(model: GAN, play: Round, logits: Mapping[str, Parts]) -> Array:
    """Equation (3), of labels y that are probabilities, over the examples of which nothing was given."""
    nothing, total = ~jnp.stack(list(play.given.values())).any(0), jnp.zeros(())
    for n in sorted({n for labels in logits.values() for n in labels}):
        mean = mean_of(nothing & play.present[n])
        p, q = (jax.vmap(mean, in_axes=1)(x[n]) for x in (play.real, play.fake))
        total = total + model.weight(n) * (p * (jnp.log(jnp.maximum(p, TINY)) - jnp.log(jnp.maximum(q, TINY)))).sum()
    return total


def unlike(model: GAN, e: Parts, seen: Parts, present: Parts) -> Array:
    """Equation (4) over, and against, examples of which m and n are present and one of them at least is `seen`."""
    total = jnp.zeros(())
    for m, n in itertools.combinations(sorted(e), 2):
        there = present[m] & present[n] & (seen[m] | seen[n])
        total = total + mean_of(there)(info_nce(e[m], e[n], there=there))
    return total


def unfaithful(model: GAN, y: Parts, x: Parts, made: Parts) -> Array:
    """Equation (5) over, and against, examples of which m was `made` of something."""
    terms = (model.weight(m) * mean_of(there)(info_nce(y[m], x[m], there=there)) for m, there in made.items())
    return sum(terms, jnp.zeros(()))
