"""A tiny world for the evaluators: three modalities of six classes, and models whose answers are known."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from mmgen_jax.modalities import Image, Label, Text
from mmgen_jax.types import Batch, EvalData

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
MODALITIES = FrozenDict({"picture": Image(6, 6, 1), "text": Text(length=12), "label": Label(6, names=NAMES)})
TEXTS = np.stack([MODALITIES["text"].encode(f"a {name}.") for name in NAMES])


def pictures(classes: np.ndarray) -> np.ndarray:
    """One bright row a class."""
    return np.eye(6, dtype=np.float32)[classes][:, :, None, None] * np.ones((1, 1, 6, 1), np.float32)


def split(n: int, absent: dict[str, list[int]] | None = None) -> Batch:
    classes = np.arange(n, dtype=np.int32) * 6 // n  # sorted by class, as splits often are
    present = {name: np.ones(n, bool) for name in MODALITIES}
    for name, rows in (absent or {}).items():
        present[name][rows] = False
    return Batch({"picture": pictures(classes), "text": TEXTS[classes], "label": classes}, present)


def data(cache: Path, n: int = 60, absent: dict[str, list[int]] | None = None) -> EvalData:
    return EvalData(split(n), split(n, absent), cache)


@dataclasses.dataclass(frozen=True)
class Model:
    """Makes pictures and labels of the class it is given, except that:

    from a text it makes class c + 1 for the classes below `wrong`; its texts say nothing for class 5.
    """

    modalities: FrozenDict = MODALITIES
    wrong: int = 0

    def classes(self, given, key, n):
        c = jax.random.randint(key, (n,), 0, 6)
        said = (given.values["text"][:, None] == jnp.asarray(TEXTS)[None]).all(-1).argmax(-1)
        c = jnp.where(given.present["text"], jnp.where(said < self.wrong, said + 1, said), c)
        c = jnp.where(given.present["picture"], given.values["picture"][:, :, 0, 0].argmax(-1), c)
        return jnp.where(given.present["label"], given.values["label"], c) if "label" in self.modalities else c

    def sample(self, variables, key, n, *, given, targets=None):
        c = self.classes(given, key, n)
        text = jnp.where(
            (c == 5)[:, None], jnp.asarray(self.modalities["text"].encode("what?"))[None], jnp.asarray(TEXTS)[c]
        )
        made = {"picture": jnp.asarray(pictures(np.arange(6)))[c], "text": text, "label": c}
        return given.completed({name: made[name] for name in targets or self.modalities})


@dataclasses.dataclass(frozen=True)
class Rows:
    """A judge that knows the pictures of this world."""

    def fit(self, name, modality, data, label):
        return self

    def classes(self, x):
        return x[:, :, 0, 0].argmax(-1)
