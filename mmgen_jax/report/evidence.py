"""What the report shows of why a model answers with a class: which values of what is given speak for it.

Each modality is given alone, since next to others that say the same none of its values matters. The shares are those of
integrated gradients: `evals/attribution.py`, equation (2).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import numpy as np

from mmgen_jax.evals.attribution import Answering, evidence
from mmgen_jax.types import Batch, Key, Modality, Model, Variables

EXAMPLES = 3  # that are shown; all that are there make the baseline


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What speaks for the answers about some examples.

    Attributes:
        of: the modality that is answered with.
        shares: of the values of each modality that is given alone, {name: [n, *shape]} in nats.
    """

    of: str
    shares: Mapping[str, np.ndarray]


def speaks(model: Model, variables: Variables, examples: Batch, key: Key) -> Evidence | None:
    """Of the first examples; None if the model is not `Answering`, has no class, or nothing real to tell it by."""
    classes = [name for name, m in model.modalities.items() if not m.shape and m.dtype.kind == "i"]
    given = [name for name, m in model.modalities.items() if is_map(m)]
    if not (isinstance(model, Answering) and classes and given):
        return None
    of, found = classes[0], {}
    for name in given:
        alone = Batch(examples.values, {n: there & (n in (name, of)) for n, there in examples.present.items()})
        program = jax.jit(functools.partial(evidence, model, of=of))
        found[name] = np.asarray(program(variables, alone, key)[name][:EXAMPLES])
    return Evidence(of, found)


def is_map(modality: Modality) -> bool:
    """Whether its values lie on a plane, or on one after the other: pictures, clips, spectrograms."""
    return modality.dtype.kind == "f" and min(modality.shape[:2], default=0) > 1 and len(modality.shape) in (2, 3, 4)


def flat(shares: np.ndarray) -> np.ndarray:
    """Shares [*shape] of one example as a plane: over channels, and frames, they add up; time runs to the right."""
    if shares.ndim == 2:  # a spectrogram [frames, bands]
        return shares.T[::-1]
    return shares.sum(-1) if shares.ndim == 3 else shares.sum((0, -1))
