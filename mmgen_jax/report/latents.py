"""What the report shows of a latent space: moves along its dimensions, ways through it, and a map of it.

m(x) is the posterior mean of the code of a test example x, M and S the mean and standard deviation of m(x) over them.

    traversal        z = m(x), but z_d = M_d + t S_d                t = -3, ..., 3                      (1)
    interpolation    z = (1 - t) m(x) + t m(y)                      t = 0, ..., 1                       (2)
    projection       (m(x) - M) V                                   V [D, 2], the principal axes of m   (3)

(2) is a straight line, not an arc: means, unlike draws from the prior, do not lie near a sphere.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from mmgen_jax.evals.latents import SHARED, Coded, means
from mmgen_jax.report.cells import PICTURES
from mmgen_jax.types import Array, Batch, Modality, Model, Params, Variables

POINTS = 1000  # at most so many test examples are on the map
MOVED, DIMENSIONS = 2, 6  # test examples that are moved, along how many dimensions
MOVES, WAY = np.linspace(-3, 3, 7), np.linspace(0, 1, 6)  # the t of equations (1) and (2)
PAIRS = 2  # ways that are shown

Arrays = Mapping[str, np.ndarray]


@runtime_checkable
class Decoding(Coded, Protocol):
    """A model with codes, and the way back from them: an optional capability, asked for by `isinstance`."""

    def decode(self, params: Params, codes: Mapping[str, Array], wanted: tuple[str, ...]) -> Mapping[str, Array]:
        """The modalities `wanted`, [B, *shape], from codes as `codes` returns them."""
        ...


@dataclasses.dataclass(frozen=True)
class Panel:
    """The map of the test examples that have what is `given`, with all else unknown.

    Attributes:
        given: names of modalities.
        points: [N, 2].
        classes: int [N], -1 where nobody knows.
        share: of the variance of these means, what lies along each axis, [2].
    """

    given: Sequence[str]
    points: np.ndarray
    classes: np.ndarray
    share: np.ndarray


@dataclasses.dataclass(frozen=True)
class LatentSpace:
    """All that is shown of a latent space.

    Attributes:
        size: D, of the shared code.
        dimensions: the K of them along which means vary most, the widest first.
        spread: their S.
        moved: of the first E examples by modality, equation (1), [E, K, T, *shape].
        ways: between the examples 0 and 1, 2 and 3, ... by modality, equation (2), [P, T, *shape].
        panels: of the map: each modality alone, then everything together, for which the axes are made.
        label: what says the classes, if anything does: a modality of the model, or a label of the experiment.
        names: of the classes that occur.
    """

    size: int
    dimensions: np.ndarray
    spread: np.ndarray
    moved: Arrays
    ways: Arrays
    panels: Sequence[Panel]
    label: str | None
    names: Mapping[int, str]


def explore(
    model: Any, variables: Variables, drawn: Batch, real: np.ndarray, known: Mapping[str, Modality]
) -> LatentSpace | None:
    """The latent space of a model, or None if it has no codes that can be decoded.

    Args:
        drawn: test examples, with what is `known` of them: the model's modalities, and the experiment's labels.
        real: which of them are shown elsewhere on the page, and moved here.
    """
    if not isinstance(model, Decoding):
        return None
    every = means(model, variables, drawn, tuple(model.modalities))
    shared = every[SHARED]
    centre, spread = shared.mean(0), shared.std(0)
    dimensions = np.argsort(-spread, kind="stable")[:DIMENSIONS]
    start = {name: code[real] for name, code in every.items()}
    moved, between = moves(start, dimensions, centre, spread), ways(start)
    codes = {name: np.concatenate([moved[name], between[name]]) for name in every}
    wanted = visible(model.modalities)
    made = jax.device_get(decode(model, variables, codes, wanted)) if wanted else {}
    count = len(moved[SHARED])
    label = label_of(known)
    classes = np.full(len(drawn), -1) if label is None else np.where(drawn.present[label], drawn.values[label], -1)
    return LatentSpace(
        size=shared.shape[1],
        dimensions=dimensions,
        spread=spread[dimensions],
        moved={n: made[n][:count].reshape(-1, len(dimensions), len(MOVES), *made[n].shape[1:]) for n in wanted},
        ways={n: made[n][count:].reshape(-1, len(WAY), *made[n].shape[1:]) for n in wanted},
        panels=panels(model, variables, drawn, shared, classes),
        label=label,
        names={int(c): str(known[label].decode(np.int32(c))) for c in np.unique(classes) if c >= 0},
    )


def moves(start: Arrays, dimensions: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> Arrays:
    """Codes of equation (1) for the first examples, all in one line: [E K T, .]; private codes stay as they are."""
    codes = {
        name: np.tile(code[:MOVED, None, None], (1, len(dimensions), len(MOVES), 1)) for name, code in start.items()
    }
    for k, d in enumerate(dimensions):
        codes[SHARED][:, k, :, d] = centre[d] + MOVES * spread[d]
    return {name: code.reshape(-1, code.shape[-1]) for name, code in codes.items()}


def ways(start: Arrays) -> Arrays:
    """Codes of equation (2), shared and private ones alike, all in one line: [P T, .]."""
    codes = {}
    for name, code in start.items():
        pairs = min(PAIRS, len(code) // 2)
        first, last = (code[i : 2 * pairs : 2, None] for i in (0, 1))
        way = WAY[:, None].astype(code.dtype)
        codes[name] = ((1 - way) * first + way * last).reshape(-1, code.shape[-1])
    return codes


@functools.partial(jax.jit, static_argnames=("model", "wanted"))
def decode(model: Any, variables: Variables, codes: Arrays, wanted: tuple[str, ...]) -> Mapping[str, Array]:
    """`model.decode`, compiled."""
    return model.decode(variables["params"], codes, wanted)


def visible(modalities: Mapping[str, Modality]) -> tuple[str, ...]:
    """The modalities that a long row of the page can hold: pictures, clips and words."""
    return tuple(name for name, modality in modalities.items() if suffix(modality) in (*PICTURES, "txt"))


def suffix(modality: Modality) -> str:
    """Of the files that the modality renders."""
    return modality.render(np.zeros(modality.shape, modality.dtype)).suffix


def label_of(known: Mapping[str, Modality]) -> str | None:
    """The first of which each example is a single whole number."""
    labels = (name for name, m in known.items() if not m.shape and np.issubdtype(m.dtype, np.integer))
    return next(labels, None)


def panels(model: Model, variables: Variables, drawn: Batch, every: np.ndarray, classes: np.ndarray) -> list[Panel]:
    """The map of means given each modality alone, and of the means [N, D] given `every` one."""
    centre = every.mean(0)
    axes = principal(every - centre)

    def panel(given: Sequence[str], codes: np.ndarray, there: np.ndarray) -> Panel:
        points = (codes[there] - centre) @ axes
        return Panel(given, points, classes[there], points.var(0) / max(codes[there].var(0).sum(), 1e-12))

    alone = [
        panel([name], means(model, variables, drawn, [name])[SHARED], drawn.present[name])
        for name in model.modalities
        if len(model.modalities) > 1 and drawn.present[name].any()
    ]
    return [*alone, panel(list(model.modalities), every, np.ones(len(every), bool))]


def principal(x: np.ndarray) -> np.ndarray:
    """The two directions [D, 2] in which x [N, D] varies most, of unit length; zero where there are fewer.

    The sign of a direction is arbitrary: its largest number is positive, so that the map is the same every time.
    """
    _, _, rows = np.linalg.svd(x, full_matrices=False)
    rows = rows[:2] * np.sign(rows[:2][np.arange(len(rows[:2])), np.abs(rows[:2]).argmax(1)])[:, None]
    return np.pad(rows, ((0, 2 - len(rows)), (0, 0))).T
