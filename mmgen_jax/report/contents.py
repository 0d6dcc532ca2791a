"""What a report shows, gathered from a run directory: curves and numbers that are there, examples made on the spot."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmgen_jax.data.loader import gather
from mmgen_jax.evals.sampling import generate
from mmgen_jax.report.evidence import Evidence, speaks
from mmgen_jax.report.latents import POINTS, Decoding, LatentSpace, explore
from mmgen_jax.report.looking import EXAMPLES, Looks, look
from mmgen_jax.report.surprise import surprises
from mmgen_jax.rng import step_key
from mmgen_jax.train.record import read_evaluation
from mmgen_jax.types import Batch, Modality, Model, Source, Variables

REAL, JOINT, TEXTS = 5, 10, 24  # examples that are shown: of the test split, of the model, and its texts
CANDIDATES = 64  # test examples of which REAL complete ones are shown

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Contents:
    """All that the page is made of; nothing in it is computed further.

    Attributes:
        title: the name of the run directory.
        model, data: their class names.
        step: of the state that is shown.
        parameters: how many numbers the model has.
        modalities: by name.
        real: complete examples of the test split, where there are any.
        made: by the modality that is given, what was made of it for each of `real`.
        reconstructed: of `real`, or None if the model does not reconstruct.
        joint: samples with nothing given; {} of a model that has `conditions`, without which it makes nothing of use.
        space: the latent space, or None if the model has none that can be shown.
        looks: what the model looks at, and what its answers follow.
        surprises: how little the model expected each cell of the first of `real`, {name: [n, *cells]} in nats; {} of a
            model that does not say.
        evidence: what speaks for the class of the first of `real`, or None if the model cannot say.
        rows: of metrics.jsonl.
        evaluation: values by name, in the order measured.
        beside: the evaluations of other runs, by the names of their directories.
        judges: the description of each judge.
        config: the experiment as JSON text.
        starts: when, how and with what the run was started, each time.
    """

    title: str
    model: str
    data: str
    step: int
    parameters: int
    modalities: Mapping[str, Modality]
    real: Batch
    made: Mapping[str, Arrays]
    reconstructed: Arrays | None
    joint: Arrays
    space: LatentSpace | None
    looks: Looks
    surprises: Arrays
    evidence: Evidence | None
    rows: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, float | None]
    beside: Mapping[str, Mapping[str, float | None]]
    judges: Sequence[Mapping[str, Any]]
    config: str
    starts: Sequence[Mapping[str, Any]]


def collect(run: Path, experiment: Any, state: Any, beside: Sequence[Path] = ()) -> Contents:
    """Read the run directory, and the evaluations `beside` it, and let the model make the examples.

    Raises ValueError if a run of `beside` has not been evaluated.
    """
    from mmgen_jax.train.log import read_rows

    others = {other.resolve().name: evaluated(other) for other in beside}
    if missing := [name for name, values in others.items() if values is None]:
        raise ValueError(f"{', '.join(missing)}: no evaluation.json there; `mmgen evaluate` writes one")
    model, variables = experiment.model, state.variables
    known = {**model.modalities, **experiment.labels}
    drawn = draw(experiment.data.source("test"), known, POINTS if isinstance(model, Decoding) else CANDIDATES)
    parts = drawn.only(model.modalities)
    chosen = complete(parts)
    real = parts.take(chosen)
    key = step_key(experiment.seed, "report", int(state.step))
    made, reconstructed, joint = show(model, variables, real, key)
    return Contents(
        title=run.resolve().name,
        model=type(model).__name__,
        data=type(experiment.data).__name__,
        step=int(state.step),
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        modalities=model.modalities,
        real=real,
        made=made,
        reconstructed=reconstructed,
        joint=joint,
        space=explore(model, variables, drawn, chosen, known),
        looks=look(model, variables, parts.take(complete(parts, EXAMPLES)), key),
        surprises=surprises(model, variables, real),
        evidence=speaks(model, variables, parts.take(complete(parts, EXAMPLES)), key),
        rows=read_rows(run / "metrics.jsonl"),
        evaluation=evaluated(run) or {},
        beside=others,
        judges=[json.loads(path.read_text()) for path in sorted(run.glob("judges*/*.json"))],
        config=(run / "config.json").read_text(),
        starts=read_rows(run / "starts.jsonl"),
    )


def evaluated(run: Path) -> dict[str, float | None] | None:
    """The values of the latest evaluation of a run, if there was one."""
    record = read_evaluation(run)
    return None if record is None else record["values"]


def draw(source: Source, modalities: Mapping[str, Modality], limit: int) -> Batch:
    """Up to `limit` examples of a split, drawn at random, always the same ones."""
    return Batch(*gather(source, modalities, np.random.default_rng(0).permutation(len(source))[:limit]))


def complete(drawn: Batch, count: int = REAL) -> np.ndarray:
    """Which are shown: the `count` most complete ones of the first `CANDIDATES`."""
    there = np.sum(list(drawn.present.values()), axis=0)[:CANDIDATES]
    return np.argsort(-there, kind="stable")[:count]


def show(
    model: Model, variables: Variables, real: Batch, key: jax.Array
) -> tuple[dict[str, Arrays], Arrays | None, Arrays]:
    """What the model makes: of each modality of the `real` examples, of all of them together, and of nothing, if it
    has no conditions."""
    names, n = tuple(model.modalities), len(real)
    made = {name: generate(model, variables, key, {name: real.values[name]}, n) for name in names if len(names) > 1}
    reconstruct = getattr(model, "reconstruct", None)
    reconstructed = None if reconstruct is None else jax.device_get(jax.jit(reconstruct)(variables, real, key))
    free = not getattr(model, "conditions", ())
    return made, reconstructed, generate(model, variables, key, {}, max(JOINT, TEXTS)) if free else {}
