"""Speed and quality against MultiVae, the PyTorch library, on five views of 28 x 28 x 3 and its convolutional networks.

    python benchmarks/versus_multivae.py speed --torch-python ~/multivae/bin/python --out benchmarks/results/x.json
    python benchmarks/versus_multivae.py quality --torch-python ~/multivae/bin/python

It needs `torch` and `multivae`, which nothing else here does, so they are to be installed by hand; in an environment of
their own, if you like, whose Python is then named by --torch-python. That one runs in a process of its own
(`multivae_worker.py`).

speed: one training step, that is forward, backward and Adam. MultiVae takes it as its trainer does, eagerly, on a batch
that is a tensor already; ours is the compiled program of the training loop, up to ten steps in one call, which also
draws the batch from 1,024 examples and computes its metrics. Blocks of steps of either are measured in turn, while the
other process waits for its input and takes no time of the processors. First both start from the same weights, get the
same batch and the same noise, and it is asserted that they compute the same loss and the same gradient of all
parameters, up to `TOLERANCE` (a ReLU at its edge may fall to either side): they do the same work. MMVAE and MMVAE+ run
with their default estimator, DReG. Times of a busy machine say little of MultiVae: PyTorch's threads wait spinning.

quality: both are trained on the same arrays of PolyDigits, in the same order of batches, with the same networks, number
of steps and Adam, each from its own initialisation (--same-start: both from MultiVae's). The networks are MultiVae's
default ones, of dense layers, with a Normal likelihood, since its convolutional ones with a Laplace likelihood show no
digit before many thousand steps. Each generates the views that are not given by its own code from those that are, for
all sets of given views of all test examples; our judges tell the share that is of the right class, by number of given
views.

Prints a Markdown table, and JSON with all that was measured to --out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from alternating import Ours, alternating, compared
from multivae_cases import CASES, NAMES, TRAINED, Case, channels_first, check_same, multivae
from peer import Arrays, Peer

import mmgen_jax as mm
from mmgen_jax.data.loader import load, order
from mmgen_jax.evals.features import Classifier
from mmgen_jax.evals.sampling import generate
from mmgen_jax.types import Batch, EvalData


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step of each model, blocks in turn."""
    rng = np.random.default_rng(0)
    values = {name: rng.random((1024, 28, 28, 3), dtype=np.float32) for name in NAMES}
    data = Batch(values, {name: np.ones(1024, bool) for name in NAMES})
    first = {name: x[: options.batch] for name, x in values.items()} if options.batch <= 1024 else None
    if first is None:
        raise ValueError(f"batch is {options.batch}, but must be at most 1024")
    results = {}
    with multivae(options) as theirs:
        versions = theirs.ask("versions")
        for name in options.models or CASES:
            case = CASES[name]
            answer, weights = theirs.fetch("model", seed=0, rate=1e-3, **case.request(options.latent))
            params = mm.vae.from_multivae(weights, case.model(options.latent))
            theirs.send("data", channels_first(first), "path")
            off = check_same(case, options.latent, theirs, params, first)
            ours = Ours(case.model(options.latent), params, data, 1e-3, options.batch)
            ours.run(1)  # compiles
            sides = {"multivae": lambda steps: theirs.ask("time", steps=steps), "ours": ours.run}
            row = alternating(sides, options.seconds, options.rounds)
            row |= compared(row, "multivae")
            results[name] = {"parameters": answer["parameters"], "relative_difference": off, **row}
            print(table({name: results[name]}, header=len(results) == 1), flush=True)
            del ours
    print("\n" + summary(results))
    return {"versions": versions, "models": results}


def table(results: dict[str, Any], header: bool = True) -> str:
    titles = "| model | MultiVae, ms a step | ours, ms a step | times faster (pairs) | times less processor time |"
    lines = [titles, "|---|---|---|---|---|"] * header
    for name, r in results.items():
        theirs, ours = (
            f"{r[f'{side}_median_ms']:.4g} ({min(r[f'{side}_ms']):.4g} to {max(r[f'{side}_ms']):.4g})"
            for side in ("multivae", "ours")
        )
        low, high = r["times_faster_by_pair"]
        faster = f"{r['times_faster']:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {name} | {theirs} | {ours} | {faster} | {r['times_less_cpu']:.2f} |")
    return "\n".join(lines)


def summary(results: dict[str, Any]) -> str:
    factors = [r["times_faster"] for r in results.values()]
    return f"times faster: {min(factors):.2f} at least, {statistics.median(factors):.2f} in the median"


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """Conditional coherence of both after the same training, by number of given views."""
    view, label = CASES["MVTCAE"].model(options.latent).modalities["m0"], mm.Label(10)
    modalities = dict.fromkeys(NAMES, view) | {"label": label}
    source = mm.data.PolyDigits()
    train, test = (load(source.source(split), modalities) for split in ("train", "test"))
    judges, accuracy, results = {}, {}, {}
    with multivae(options) as theirs:
        versions = theirs.ask("versions")
        data = EvalData(train, test, options.judges or theirs.folder / "judges")
        for name in NAMES:
            judges[name] = Classifier().fit(name, view, data, "label")
            accuracy[name] = float(np.mean(judges[name].classes(test.values[name]) == test.values["label"]))
        views = [Batch({n: x.values[n] for n in NAMES}, {n: x.present[n] for n in NAMES}) for x in (train, test)]
        for name in options.models or TRAINED:
            runs = [trained(TRAINED[name], options, seed, theirs, *views) for seed in range(options.seeds)]
            judged = [{who: coherence(judges, made, test.values["label"]) for who, made in run.items()} for run in runs]
            results[name] = {who: [run[who] for run in judged] for who in judged[0]}
            print(quality_table({name: results[name]}), flush=True)
    return {"versions": versions, "judges": accuracy, "models": results}


Made = dict[tuple[str, ...], Arrays]  # what was generated, by what was given


def trained(case: Case, options: argparse.Namespace, seed: int, theirs: Peer, train: Batch, test: Batch) -> Any:
    """What both make of the test views after training."""
    _, weights = theirs.fetch("model", seed=seed, rate=options.rate, **case.request(options.latent))
    rows = order(len(train), seed, 0, options.steps * options.batch).reshape(options.steps, options.batch)
    theirs.send("data", channels_first(train.values), "path")
    print(f"{case.kind} {seed}: MultiVae ends at {theirs.send('train', {'rows': rows}, 'order')}", file=sys.stderr)
    model = case.model(options.latent)
    own = jax.jit(lambda key: model.init(key)[0])(jax.random.key(seed))
    params = mm.vae.from_multivae(weights, model) if options.same_start else own
    ours = Ours(model, params, train, options.rate, options.batch, seed)
    ours.run(options.steps, seed)
    theirs.send("data", channels_first(test.values), "path")
    made: dict[str, Made] = {"MultiVae": {}, "ours": {}}
    for given in (g for count in range(1, len(NAMES)) for g in itertools.combinations(NAMES, count)):
        _, answer = theirs.fetch("predict", given=given)
        made["MultiVae"][given] = {name: np.moveaxis(x, 1, -1) for name, x in answer.items()}
        parts = {name: test.values[name] for name in given}
        own = generate(model, ours.state.variables, jax.random.key(seed), parts, len(test))
        made["ours"][given] = {name: x for name, x in own.items() if name not in given}
    return made


def coherence(judges: dict[str, Any], made: Made, labels: np.ndarray) -> dict[str, float]:
    """The share of the right class, by number of given views."""
    right: dict[str, list[float]] = {}
    for given, answers in made.items():
        shares = [np.mean(judges[name].classes(x) == labels) for name, x in answers.items()]
        right.setdefault(f"given_{len(given)}", []).extend(map(float, shares))
    return {count: round(statistics.mean(shares), 4) for count, shares in right.items()}


def quality_table(results: dict[str, Any]) -> str:
    counts = [f"given_{i}" for i in range(1, len(NAMES))]
    lines = [f"| model | by | {' | '.join(counts)} |", "|---|---|" + "---|" * len(counts)]
    for name, sides in results.items():
        for who, runs in sides.items():
            cells = []
            for count in counts:
                shares = [run[count] for run in runs]
                error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
                cells.append(f"{statistics.mean(shares):.3f} ± {error:.3f}")
            lines.append(f"| {name} | {who} | {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function, cases in (("speed", speed, CASES), ("quality", quality, TRAINED)):
        command = commands.add_parser(name, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("--torch-python", default=sys.executable, help="a Python that has torch and multivae")
        command.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch")
        command.add_argument("--models", nargs="+", choices=list(cases), metavar="MODEL", help=", ".join(cases))
        command.add_argument("--latent", type=int, default=64, help="half of them are private codes in MMVAE+")
        command.add_argument("--batch", type=int, default=64)
        command.add_argument("--out", type=Path, help="a JSON file for the result")
        if function is speed:
            command.add_argument("--rounds", type=int, default=7, help="pairs of blocks")
            command.add_argument("--seconds", type=float, default=2.0, help="that a block lasts, or one step")
        else:
            command.add_argument("--steps", type=int, default=1000)
            command.add_argument("--rate", type=float, default=1e-3)
            command.add_argument("--seeds", type=int, default=3)
            command.add_argument("--same-start", action="store_true", help="start both from MultiVae's weights")
            command.add_argument("--judges", type=Path, help="a folder to keep trained judges in")
    return parser.parse_args()


def command_line() -> str:
    """What was typed, without the paths of this machine."""
    words = ["python", "benchmarks/versus_multivae.py", *sys.argv[1:]]
    for flag, stand_in in (("--torch-python", "PYTHON"), ("--judges", "FOLDER"), ("--out", "FILE")):
        if flag in words[:-1]:
            words[words.index(flag) + 1] = stand_in
    return shlex.join(words)


def main() -> None:
    options = arguments()
    load_before = os.getloadavg()[0]
    result = {
        "command": command_line(),
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}, {len(os.sched_getaffinity(0))} processors",
        "load_before": load_before,
    }
    result |= options.function(options)
    ours = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    result["versions"] = {"multivae_side": result["versions"], "our_side": ours | {"python": platform.python_version()}}
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
