"""Examples from memory, two data sets paired by label, parts that go missing, and pictures in black and white."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmgen_jax.data.kept import digest
from mmgen_jax.types import Data, Source

MECHANISMS = ("completely", "label", "value")


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Your own examples: `Arrays({"image": images, "label": labels}).source("train")`.

    train, test: one sequence a modality (an array, or a list for texts), all of one length; None among a list's
        entries is a missing part.
    """

    train: Mapping[str, Any]
    test: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            lengths = {name: len(column) for name, column in (getattr(self, split) or {}).items()}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"Arrays: the columns of {split} differ in length: {lengths}.")

    def source(self, split: str) -> Source:
        """Raises ValueError if there is no such split."""
        check_split(self, split)
        columns = getattr(self, split)
        if not columns:
            raise ValueError(f"Arrays: {split} was not given.")
        return Columns(columns)


class Columns:
    """A Source over one sequence a modality."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: column[i] for name, column in self.columns.items()}


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two data sets as one: each example of `first`, in its order, with one of `second` that has the same label.

    Within a label the examples of `second` are dealt out in a shuffled order, again and again if there are fewer of
    them, so that as many as possible are used. All but the label (`by`) must have different names. With by=None any
    example of `second` goes with any of `first`: what is paired has nothing to do with each other.
    """

    first: Data
    second: Data
    by: str | None = "label"
    seed: int = 0

    def source(self, split: str) -> Source:
        """Raises ValueError for a name that both have, and a label of `first` that `second` does not have."""
        first, second = self.first.source(split), self.second.source(split)
        shared = (first[0].keys() & second[0].keys()) - {self.by}
        if shared:
            allowed = "nothing" if self.by is None else f'only "{self.by}"'
            raise ValueError(f"Paired: {allowed} may be in both data sets, but {sorted(shared)} are.")
        wanted, offered = self._labels(first), self._labels(second)
        partner = np.zeros(len(first), int)
        for label in np.unique(wanted):
            rows, pool = np.flatnonzero(wanted == label), np.flatnonzero(offered == label)
            if not len(pool):
                raise ValueError(f'Paired: no example of the second data set has {self.by} {label} in "{split}".')
            # A key for each label: what others there are changes nothing.
            rng = np.random.default_rng((self.seed, int(label)))
            partner[rows] = np.resize(rng.permutation(pool), len(rows))
        return Pairs(first, second, partner)

    def _labels(self, source: Source) -> np.ndarray:
        if self.by is None:
            return np.zeros(len(source), int)
        labels = [source[i].get(self.by) for i in range(len(source))]
        if None in labels:
            raise ValueError(f'Paired: example {labels.index(None)} has no "{self.by}".')
        return np.array(labels, int)


class Pairs:
    """A Source of the examples of `first`, each with what example `partner[i]` of `second` adds."""

    def __init__(self, first: Source, second: Source, partner: np.ndarray) -> None:
        self.first, self.second, self.partner = first, second, partner

    @property
    def fingerprint(self) -> str | None:
        return digest(*(getattr(source, "fingerprint", None) for source in (self.first, self.second)), self.partner)

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.second[int(self.partner[i])] | self.first[i]


@dataclasses.dataclass(frozen=True)
class Missing:
    """Takes parts of the training examples away: `Missing(Digits(), {"text": 0.3})`. Test examples stay whole.

    rates: modality -> the probability that it is missing, in [0, 1].
    how: by which of Rubin's three mechanisms:
        "completely" at random (MCAR): whatever the example is.
        "label", at random (MAR): what is always seen decides. With labels 0..K-1, label k loses a part with
            probability rate * 2 (k + 1/2) / K, at most 1: the rate on average where it is at most 1/2.
        "value", not at random (MNAR): what is taken decides. A part is missing with the probability
            rate * 2 F, at most 1, where F in [0, 1] is the rank of its mean (a text: its length) in the data set.
    by: the modality that decides under "label"; it is never taken.
    seed: which draw.

    The same parts are missing every time. At least one part of each example stays: where all would go, the one with
    the lowest rate (the first of equals) is kept. D. B. Rubin, Inference and missing data, 1976.
    """

    data: Data
    rates: Mapping[str, float]
    how: str = "completely"
    by: str = "label"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in MECHANISMS:
            raise ValueError(f"Missing: how must be one of {MECHANISMS}, not {self.how!r}.")
        if not self.rates:
            raise ValueError("Missing: rates names no modality.")
        for name, rate in self.rates.items():
            if not 0 <= rate <= 1:
                raise ValueError(f'Missing: rates["{name}"] must be in [0, 1], not {rate!r}.')
        if self.how == "label" and self.rates.get(self.by):
            raise ValueError(f'Missing: "{self.by}" decides what is missing and cannot be missing itself.')

    def source(self, split: str) -> Source:
        """Raises ValueError for a rate of a modality that the data does not have."""
        source = self.data.source(split)
        if split != "train":
            return source
        names = source[0].keys()
        for name in (*self.rates, *([self.by] if self.how == "label" else [])):
            if name not in names:
                raise ValueError(f'Missing: "{name}" is not in the data, which has {", ".join(names)}.')
        chances = np.stack([rate * self._tilt(source, name) for name, rate in self.rates.items()], 1)
        draws = np.random.default_rng(self.seed).random((len(source), len(self.rates)))
        return Thinned(source, dict(self.rates), draws < chances)

    def _tilt(self, source: Source, name: str) -> np.ndarray:
        """By how much the rate of `name` is multiplied for each example, [N] or [1]; 1 on average."""
        if self.how == "completely":
            return np.ones(1)
        if self.how == "label":
            labels = np.array([source[i][self.by] for i in range(len(source))])
            return 2 * (labels + 0.5) / (labels.max() + 1)
        sizes = np.array([_size(source[i].get(name)) for i in range(len(source))])
        # The middle rank of equal values: all of them are treated alike.
        _, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
        return 2 * ((np.cumsum(counts) - counts / 2) / len(sizes))[which]


class Thinned:
    """A Source without the parts that `gone` [N, len(rates)] marks, in the order of `rates`."""

    def __init__(self, source: Source, rates: dict[str, float], gone: np.ndarray) -> None:
        self.source, self.rates, self.gone = source, rates, gone

    @property
    def fingerprint(self) -> str | None:
        return digest(getattr(self.source, "fingerprint", None), repr(self.rates), self.gone)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        whole = {name: value for name, value in self.source[i].items() if value is not None}
        gone = {name for name, is_gone in zip(self.rates, self.gone[i], strict=True) if is_gone}
        last = min(whole, key=lambda name: self.rates.get(name, 0.0))
        return {name: value for name, value in whole.items() if name not in gone} or {last: whole[last]}


@dataclasses.dataclass(frozen=True)
class Binarized:
    """Pictures or clips as what a Bernoulli likelihood scores: `Binarized(Digits(), ("image", "video"))`.

    names: the modalities to binarize: arrays of uint8, floats in [0, 1], or bool.
    threshold: what is brighter becomes True, as a fraction of full brightness in [0, 1).
    """

    data: Data
    names: tuple[str, ...] = ("image",)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.names, tuple) or not self.names:
            raise ValueError(f"Binarized: names must be a tuple of modalities, not {self.names!r}.")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"Binarized: threshold must be in [0, 1), not {self.threshold!r}.")

    def source(self, split: str) -> Source:
        """Raises ValueError for a name that no example has."""
        source = self.data.source(split)
        for name in self.names:
            if not any(name in source[i] for i in range(len(source))):  # as a rule in the first
                raise ValueError(f'Binarized: "{name}" is not in the data, which has {", ".join(source[0])}.')
        return BlackAndWhite(source, self.names, self.threshold)


class BlackAndWhite:
    """A Source whose parts `names` are bool: whether brighter than `threshold`."""

    def __init__(self, source: Source, names: tuple[str, ...], threshold: float) -> None:
        self.source, self.names, self.threshold = source, names, threshold

    @property
    def fingerprint(self) -> str | None:
        return digest(getattr(self.source, "fingerprint", None), repr(self.names), repr(self.threshold))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example = self.source[i]
        return example | {name: self._binary(name, example[name]) for name in self.names if name in example}

    def _binary(self, name: str, value: Any) -> np.ndarray | None:
        if value is None:
            return None
        x = np.asarray(value)
        if x.dtype != np.uint8 and x.dtype.kind not in "fb":
            raise ValueError(f'"{name}": Binarized takes arrays of uint8, floats or bool, not {x.dtype}.')
        return x > self.threshold * (255 if x.dtype == np.uint8 else 1)


def check_split(data: Data, split: str) -> None:
    """Raises ValueError unless the split is one of the two that every data set has."""
    if split not in ("train", "test"):
        raise ValueError(f'{type(data).__name__}: split must be "train" or "test", not {split!r}.')


def _size(value: Any) -> float:
    """What ranks a part under "value": the length of a text, the mean of numbers, 0 for what is not there."""
    if value is None:
        return 0.0
    return float(len(value) if isinstance(value, str) else np.mean(value))
