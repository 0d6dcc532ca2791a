"""`evaluation.json`: what was measured of a run, and all that is needed to say what the numbers mean."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmgen_jax.config import Experiment, json_tree, write_text
from mmgen_jax.train.log import finite


def write_evaluation(workdir: Path, step: int, values: Mapping[str, float], experiment: Experiment) -> None:
    """Write the values of the state after `step` steps with their protocol: evaluators, data, judges, versions.

    judges: of those that the run directory keeps, the modality and the hash of the weights; of those that were trained
        here the accuracy, of others what they are and in which version.
    """
    protocol = {
        "evaluators": json_tree(experiment.evaluators),
        "data": json_tree(experiment.data),
        "seed": experiment.seed,
        "judges": [_judge(path) for path in sorted(workdir.glob("judges/*.json"))],
        "versions": {name: importlib.metadata.version(name) for name in ("mmgen_jax", "jax", "flax")},
    }
    record = {"step": step, "values": finite(values), "protocol": protocol}
    write_text(workdir / "evaluation.json", json.dumps(record, indent=2))


def read_evaluation(run: Path) -> dict[str, Any] | None:
    """What `write_evaluation` has written of a run: `step`, `values` and `protocol`; None if nothing.

    Raises:
        ValueError: the file cannot be read.
    """
    path = run / "evaluation.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        return {"step": record["step"], "values": dict(record["values"]), "protocol": record.get("protocol", {})}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an evaluation: {error!r}") from None


def _judge(path: Path) -> dict[str, Any]:
    description = json.loads(path.read_text())
    return {name: description[name] for name in ("modality", "accuracy", "version", "sha256") if name in description}
