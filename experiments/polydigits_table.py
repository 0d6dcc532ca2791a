"""Every objective on PolyDigits at an equal number of steps, as one table.

COMMAND   python experiments/polydigits_table.py --workdir runs/polydigits --out benchmarks/results/polydigits_table.md

Each objective has a run directory of its own in the workdir, and goes on from its checkpoint when the command is given
again; what is measured of it stands in its evaluation.json. The judges are trained once, for all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import polydigits

import mmgen_jax as mm
from mmgen_jax.config import write_text
from mmgen_jax.train.log import finite, read_rows
from mmgen_jax.train.loop import evaluation_data
from mmgen_jax.vae.joint import JointModel
from mmgen_jax.vae.priors.gaussian_mixture import GaussianMixturePrior

JUDGE = mm.evals.Classifier(steps=2000)
MIXTURE = GaussianMixturePrior(components=10, starts=1, steps=50)
COHERENCE = mm.evals.Coherence(limit=200, judges=dict.fromkeys(polydigits.VIEWS, JUDGE))
FRECHET = mm.evals.Distances(("frechet",), limit=500, extractor=JUDGE, halves=0)
EXAMPLES, SAMPLES = 100, 100  # of the likelihood: test examples, and K for each of them
COLUMNS = ("objective", "1 given", "2 given", "3 given", "4 given", "joint, prior", "joint, mixture", "Frechet")
COLUMNS += ("NLL, nats", "steps/s")

Values = Mapping[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=polydigits.STEPS)
    parser.add_argument("--only", metavar="A,B", help="of all objectives just these")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="where to write the table")
    options = parser.parse_args()
    known = list(polydigits.models(options.steps))
    names = known if options.only is None else options.only.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--only names {', '.join(unknown)}, but there are {', '.join(known)}")
    began, rows, data = time.perf_counter(), {}, None
    for i, name in enumerate(names, 1):
        experiment, run = polydigits.make(name, options.steps), options.workdir / name
        say(f"{name}, {i} of {len(names)}, after {time.perf_counter() - began:.0f} s")
        state = mm.fit(dataclasses.replace(experiment, evaluators=()), run)
        data = data or evaluation_data(experiment, experiment.data.source("train"), None, options.workdir)
        rows[name] = measured(experiment.model, state, data, run) | {"speed": speed(read_rows(run / "metrics.jsonl"))}
        say(table({name: rows[name]}).splitlines()[-1])
        jax.clear_caches()  # of programs that no other model can use
    text = page(rows, options.steps, time.perf_counter() - began)
    print(text)
    if options.out is not None:
        write_text(options.out, text)


def measured(model: JointModel, state: mm.TrainState, data: mm.EvalData, run: Path) -> dict[str, float]:
    """All values of a trained model: those in its run directory, if they are of this step."""
    path, step = run / "evaluation.json", int(state.step)
    if path.exists() and (known := json.loads(path.read_text()))["step"] == step:
        return known["values"]
    key = mm.rng.step_key(0, "evaluate", step)
    priors = (MIXTURE,) if isinstance(model, mm.VAE) else ()
    values = dataclasses.replace(COHERENCE, priors=priors)(model, state.variables, data, key)
    values |= FRECHET(model, state.variables, data, key)
    values |= likelihood(model, state, data.test.only(model.modalities), key)
    write_text(path, json.dumps({"step": step, "values": finite(values)}, indent=2))
    return values


def likelihood(model: JointModel, state: mm.TrainState, test: mm.Batch, key: jax.Array) -> dict[str, float]:
    """The mean negative log-likelihood of test examples, all views together, and its standard error over them."""
    estimate = jax.jit(mm.vae.log_likelihood, static_argnums=(0, 4))
    some = test.take(np.random.default_rng(0).permutation(len(test))[:EXAMPLES])
    nats = -np.asarray(estimate(model, state.variables["params"], some, key, SAMPLES).value, np.float64)
    return {"nll": float(nats.mean()), "nll/error": float(nats.std(ddof=1) / np.sqrt(len(nats)))}


def speed(rows: Sequence[Mapping[str, float]]) -> float:
    """Steps a second of training: the median over the log, since other work on the machine comes and goes."""
    return statistics.median(row["steps_per_second"] for row in rows if "steps_per_second" in row)


def given(values: Values, count: int) -> tuple[float, float]:
    """The coherence with that many views given: mean and standard error over the sets of views."""
    sets = defaultdict(list)
    for name, value in values.items():
        if match := re.fullmatch(r"coherence/(.+)->.+", name):
            sets[match[1]].append(value)
    means = [statistics.mean(found) for views, found in sets.items() if views.count("+") == count - 1]
    return statistics.mean(means), statistics.stdev(means) / len(means) ** 0.5


def table(rows: Mapping[str, Values]) -> str:
    """The rows in Markdown; - where a model has no such value."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    for name, values in rows.items():
        cells = [name, *("{:.2f} ± {:.2f}".format(*given(values, count)) for count in range(1, 5))]
        joint = ("coherence/joint", "coherence/joint/GaussianMixturePrior")
        cells += [f"{values[key]:.2f}" if key in values else "-" for key in joint]
        cells.append(f"{statistics.mean(v for key, v in values.items() if re.fullmatch('frechet/[^/]+', key)):.1f}")
        cells.append(f"{values['nll']:.0f} ± {values['nll/error']:.0f}" if "nll" in values else "-")
        cells.append(f"{values['speed']:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(rows: Mapping[str, Values], steps: int, seconds: float) -> str:
    """The table with all that is needed to read it."""
    first = next(iter(rows.values()))
    judges = [value for key, value in first.items() if key.startswith("judge/")]
    floor = statistics.mean(value for key, value in first.items() if re.fullmatch("frechet/.+/floor", key))
    notes = (
        f"k given: of the views made from k of the five, the share that is judged to be of the example's class, "
        f"{COHERENCE.limit} test examples for each set of views; ± the standard error over the sets of k views.",
        f"joint: of {COHERENCE.limit} samples with nothing given, the share whose five views are judged to be of one "
        f"class (standard error at most {0.5 / COHERENCE.limit**0.5:.2f}): codes from the model's own prior, and from "
        f"a mixture of {MIXTURE.components} Gaussians fitted to the codes of the training split.",
        f"The judges are right about {min(judges):.3f} to {max(judges):.3f} of the real test examples of a view.",
        f"Frechet: distance of {FRECHET.limit} samples with nothing given (the model's own prior) from as many test "
        f"examples, in features of the judges, mean of the five views; of real training examples it is {floor:.1f}.",
        f"NLL: of all five views together, by importance sampling with K = {SAMPLES} (in expectation an upper bound), "
        f"{EXAMPLES} test examples; ± the standard error over them.",
        "steps/s: the median over the log of the training.",
    )
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores of {platform.machine()}"
    return "\n".join(
        [
            f"# PolyDigits: every objective after {steps:,} steps\n",
            f"    {shlex.join(['python', *sys.argv])}\n",
            f"{device}; jax {jax.__version__}; the last session took {seconds / 60:.1f} minutes.\n",
            f"{table(rows)}\n",
            *(f"* {note}" for note in notes),
            "",
        ]
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
