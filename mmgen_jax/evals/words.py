"""A judge of texts that needs no training: the class is the one whose word stands in the text."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from mmgen_jax.types import EvalData, Modality


@dataclasses.dataclass(frozen=True)
class Words:
    """`Words(("zero", "one", "two"))`: the word of each class, in the order of the classes."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.words or len({word.lower() for word in self.words}) < len(self.words):
            raise ValueError(f"Words: words must be different words, one for each class, not {self.words!r}")

    def fit(self, name: str, modality: Modality, data: EvalData, label: str) -> Reader:
        """The judge of texts that `modality` decodes; nothing is learned."""
        return Reader(self.words, modality)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads the class of texts."""

    words: tuple[str, ...]
    modality: Modality

    def classes(self, x: np.ndarray) -> np.ndarray:
        """x [N, *shape] -> int [N]; -1 where none of the words stands, or more than one."""
        number = {word.lower(): i for i, word in enumerate(self.words)}
        longest_first = sorted(map(re.escape, number), key=len, reverse=True)
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)")
        found = [{number[word] for word in pattern.findall(self.modality.decode(one).lower())} for one in x]
        return np.array([classes.pop() if len(classes) == 1 else -1 for classes in found], int)
