"""Features learned without classes, by telling how an example was turned, and a probe that says what they are worth.

    pictures, clips     turned by k quarter turns, all frames alike; by half turns where they are not square       (1)
    sounds, vectors     the order of the first axis reversed, of the second, of both; an axis of one has no order   (2)

A network that tells k has to know what things look like when they stand upright: Gidaris et al. 2018
(arXiv:1803.07728), for pictures. (2) is the same for arrays that cannot be turned: a sound played backwards, or with
low for high. The network and its training are those of the judges (`features.py`); what it sees in place of classes is
k.

    random <= pretext <= supervised                                                                                 (3)

is what the probes (`probe.py`), linear and by neighbours, are to show, of features of a network that nobody trained,
one that was trained on k, and one on the classes themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from flax.core import FrozenDict

from mmgen_jax.evals import probe
from mmgen_jax.evals.distances import Extractor
from mmgen_jax.evals.features import Classifier, Judge, RandomFeatures, labelled
from mmgen_jax.evals.intervals import share_interval
from mmgen_jax.evals.sampling import choose
from mmgen_jax.progress import track
from mmgen_jax.types import Batch, EvalData, Key, Modality, Model, Variables

TURN = "turn"  # the name of k among modalities


@dataclasses.dataclass(frozen=True)
class Rotations:
    """Features of a network that has learned to tell (1) or (2); an `Extractor`.

    Attributes:
        classifier: the network, and how it is trained.
        limit: at most so many examples of a split, each of which is seen in every turn.
    """

    classifier: Classifier = Classifier()
    limit: int = 4000

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Judge:
        """The network of modality `name`, real values, kept as judges are; the label is not looked at.

        Raises ValueError if an example cannot be turned.
        """
        own = f"{name} turned"  # so that it is kept, and shown, as another than the judge of `name`

        def split(part: Batch) -> Batch:
            versions = turned(part.values[name][choose(part, (name,), self.limit)])
            x, k = np.concatenate(versions), np.repeat(np.arange(len(versions), dtype=np.int32), len(versions[0]))
            return Batch({own: x, TURN: k}, dict.fromkeys((own, TURN), np.ones(len(k), bool)))

        return self.classifier.fit(own, modality, EvalData(split(data.train), split(data.test), data.cache), TURN)


def turned(x: np.ndarray) -> list[np.ndarray]:
    """Examples [n, *shape] in every turn, as they are first.

    Raises:
        ValueError: they have one value each, or more axes than clips have.
    """
    if x.ndim in (4, 5):  # [n, H, W, C] or [n, F, H, W, C]
        quarters = range(4) if x.shape[-3] == x.shape[-2] else (0, 2)
        return [np.rot90(x, k, axes=(-3, -2)) for k in quarters]
    axes = [axis for axis in range(1, x.ndim) if x.shape[axis] > 1]
    if not 1 <= len(axes) <= 2:
        raise ValueError(f"examples of shape {list(x.shape[1:])} cannot be turned")
    flips = [(), *((axis,) for axis in axes), *([tuple(axes)] if len(axes) == 2 else [])]
    return [np.flip(x, flip) for flip in flips]


FEATURES = FrozenDict({"random": RandomFeatures(), "rotations": Rotations(), "supervised": Classifier()})


@dataclasses.dataclass(frozen=True)
class Pretext:
    """Whether turning helps: the accuracy of probes of the features of every modality made of real values.

    Returns "probe/image/random", "probe/image/rotations" and "probe/image/supervised" of the linear probe, "knn/..." of
    the neighbours, each with its 95 % interval. It looks at the data alone, not at the model.

    Attributes:
        label: what says the class: a modality of the model, or a label of the experiment.
        limit: at most so many examples of a split, for the probes.
        features: where they are from, by the name under which they are measured.
    """

    label: str = "label"
    limit: int = 4000
    features: Mapping[str, Extractor] = FEATURES

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", FrozenDict(self.features))  # frozen, and the same after JSON
        if self.limit < 1:
            raise ValueError(f"Pretext: limit must be at least 1, not {self.limit}")

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError if no example of a split has a modality and a label."""
        real = [name for name, m in model.modalities.items() if np.issubdtype(m.dtype, np.floating)]
        values = {}
        for name in track(real, "pretext"):
            for kind, extractor in self.features.items():
                judge = extractor.fit(name, model.modalities[name], data, self.label)
                for probed, right in self._probed(judge, name, data).items():
                    share, what = float(right.mean()), f"{probed}/{name}/{kind}"
                    low, high = share_interval(share, len(right))
                    values |= {what: share, f"{what}/low": low, f"{what}/high": high}
        return values

    def _probed(self, judge: Judge, name: str, data: EvalData) -> dict[str, np.ndarray]:
        """Of every test example, whether a probe says its class, bool [n], by the name of the probe."""
        (train, classes), (test, truth) = (
            labelled(split.take(choose(split, (name, self.label), self.limit)), name, self.label)
            for split in (data.train, data.test)
        )
        count = 1 + max(int(classes.max()), int(truth.max()))
        fit = jax.jit(probe.fit, static_argnums=3)
        known, seen = judge.features(train), judge.features(test)
        fitted = fit(known, classes, np.ones(len(train), bool), count)
        linear = np.asarray(probe.logits(fitted, seen)).argmax(-1)
        return {"probe": linear == truth, "knn": probe.vote(seen, known, classes) == truth}
