"""Whether text, picture and clip of a digit say the same of it: stroke, width, slant and motion, by measurement.

Coherence asks for the class alone; the captions of the digits state more (`data/builders/facts.py`), and what they
state can be measured in a picture or a clip without a judge. Two examples that have nothing to do with one another
agree by chance in

    sum_v p(given states v) p(made shows v)                                                    (1)

of cases: against this the agreement has to be read.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmgen_jax.data.builders import facts
from mmgen_jax.evals.sampling import choose, generate
from mmgen_jax.progress import track
from mmgen_jax.rng import fold_name
from mmgen_jax.types import EvalData, Key, Modality, Model, Variables

STROKE = ("thickness", "width", "slant")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Agreement of facts between the text, image and video of `Digits`, generated one from the other.

    Returns "facts/slant:text->image", the share of test texts that give an image of the slant they state, and beside
    it "facts/slant:text->image/chance", equation (1). What shows no fact at all, such as an empty picture, is wrong.

    Attributes:
        text, image, video: what these modalities are called; those that the model does not have are left out.
        limit: at most so many test examples.
    """

    text: str = "text"
    image: str = "image"
    video: str = "video"
    limit: int = 1000

    def check(self, model: Model) -> None:
        """Raises ValueError if the model has fewer than two of the modalities."""
        readers = self._readers(model.modalities)
        if len(readers) < 2:
            raise ValueError(
                f"Facts compares {self.text}, {self.image} and {self.video}, of which the model has {list(readers)}"
            )

    def __call__(self, model: Model, variables: Variables, data: EvalData, key: Key) -> dict[str, float]:
        """Raises ValueError as `check`."""
        self.check(model)
        readers, values = self._readers(model.modalities), {}
        for given in track(list(readers), "facts"):
            rows = choose(data.test, (given,), self.limit)
            x = {given: data.test.values[given][rows]}
            made = generate(model, variables, fold_name(key, given), x, len(rows)) | x
            shown = {name: reader.all(made[name]) for name, reader in readers.items() if name in made}
            for name in shown.keys() - {given}:
                for fact in readers[name].facts:
                    if fact in readers[given].facts:
                        share, chance = agreement(*([one.get(fact) for one in shown[n]] for n in (given, name)))
                        values[f"facts/{fact}:{given}->{name}"] = share
                        values[f"facts/{fact}:{given}->{name}/chance"] = chance
        return values

    def _readers(self, modalities: Mapping[str, Modality]) -> dict[str, Reader]:
        readers = {
            self.text: Reader((*STROKE, "direction"), lambda x: facts.parse(modalities[self.text].decode(x))),
            self.image: Reader(STROKE, facts.image_facts),
            self.video: Reader((*STROKE, "direction"), lambda x: facts.image_facts(x[0]) | facts.video_facts(x)),
        }
        return {name: reader for name, reader in readers.items() if name in modalities}


@dataclasses.dataclass(frozen=True)
class Reader:
    """Which facts a modality shows, and how they are read from one example [*shape]."""

    facts: tuple[str, ...]
    read: Callable[[Any], dict[str, str]]

    def all(self, xs: np.ndarray) -> list[dict[str, str]]:
        return [self.read(x) for x in xs]


def agreement(stated: Sequence[str | None], shown: Sequence[str | None]) -> tuple[float, float]:
    """(share of pairs that agree, equation (1)) among the pairs that state something; NaN where none does."""
    pairs = [(a, b) for a, b in zip(stated, shown, strict=True) if a is not None]
    if not pairs:
        return float("nan"), float("nan")
    first, second = (Counter(values) for values in zip(*pairs, strict=True))
    chance = sum(first[value] * second[value] for value in first) / len(pairs) ** 2
    return sum(a == b for a, b in pairs) / len(pairs), chance
