"""The command line: `mmgen train | sample | evaluate | report | compare | data`, also as `python -m mmgen_jax`.

    mmgen train experiments/digits_vae.py --workdir runs/vae --steps 2000 --model.latent 32
    mmgen sample runs/vae --given text="a thick seven" --n 16
    mmgen sample runs/flow --model.guidance.scale 2 --weak 1000
    mmgen evaluate runs/vae
    mmgen report runs/vae
    mmgen compare runs/vae runs/flow --out both.html
    mmgen data experiments/digits_vae.py

A run directory is all that sampling, evaluating and reporting need, unless the experiment has classes of its own: then
its file is given as well, with --experiment.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmgen_jax.allocator import MISSING, restart_with_tcmalloc

PRIORS = ("mixture", "flow", "flow-matching")  # `generate.PRIORS`, whose module is heavy: --help is to be quick
STOPPED = 128 + signal.SIGTERM  # what a shell reports of a process that SIGTERM has ended


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 after a user's mistake (one sentence on stderr), or STOPPED."""
    options, fields = _parser().parse_known_args(args)
    settable = {train: "--", sample: "--model."}.get(options.command)  # how flags begin that name fields
    if fields and not (settable and all(arg.startswith(settable) for arg in fields if arg.startswith("--"))):
        _parser().error(f"unrecognized arguments: {' '.join(fields)}")
    if args is None and options.command is train and not options.help and not restart_with_tcmalloc():
        options.advice = MISSING
    try:
        return options.command(options, fields) if settable else options.command(options)
    except (ValueError, OSError, FloatingPointError) as error:
        if not _is_users(error):
            raise
        print(f"mmgen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mmgen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Any, **settings: Any) -> argparse.ArgumentParser:
        help = command.__doc__.partition("\n")[0]
        sub = commands.add_parser(command.__name__, help=help, description=help, allow_abbrev=False, **settings)
        sub.set_defaults(command=command)
        return sub

    sub = add(train, add_help=False)
    sub.add_argument("file", nargs="?", help="an experiment file: Python that defines `experiment`")
    sub.add_argument("--workdir", help="the run directory: made, or continued if it holds this experiment")
    sub.add_argument("--distributed", nargs="*", metavar="COORDINATOR COUNT INDEX", help="be one of several processes")
    sub.add_argument("-h", "--help", action="store_true", help="with a file: the fields that can be set")
    sub.set_defaults(parser=sub, advice=None)
    for command in (sample, evaluate, report):
        sub = add(command)
        sub.add_argument("run", type=Path, help="a run directory")
        sub.add_argument("--experiment", metavar="FILE", help="its experiment file, if that has classes of its own")
        if command is not report:
            sub.add_argument("--step", type=int, help="of which checkpoint (the latest)")
        if command is report:
            sub.add_argument("--beside", nargs="+", default=[], metavar="RUN", help="whose coherence to show as well")
        if command is sample:
            _add_sampling(sub)
    sub = add(compare)
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories that were evaluated")
    sub.add_argument("--only", metavar="A,B", help="metrics whose names begin so (all)")
    sub.add_argument("--out", type=Path, nargs="+", default=[], metavar="FILE", help="also as .html, .md or .csv")
    sub = add(data)
    sub.add_argument("data", metavar="DATA", help="an experiment file, or `digits`")
    return parser


def _add_sampling(sub: argparse.ArgumentParser) -> None:
    """The options of `mmgen sample` alone."""
    sub.add_argument("--given", action="append", default=[], metavar="NAME=VALUE", help="a text, number or path")
    sub.add_argument("--targets", metavar="A,B", help="what to generate (all)")
    sub.add_argument(
        "--prior",
        choices=PRIORS,
        help="fit this to the codes of the training data, and draw from it where nothing is given",
    )
    sub.add_argument("--weak", type=int, metavar="STEP", help="an earlier checkpoint, to be guided away from")
    sub.add_argument("--n", type=int, default=16, help="how many examples (16)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to (RUN/samples)")


def train(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """Train an experiment; its fields are set by --NAME VALUE (`mmgen train FILE --help` lists them)."""
    from mmgen_jax.config import load_experiment
    from mmgen_jax.overrides import describe, override

    if options.help:
        print(options.parser.format_help())
        print(f"fields of {options.file}:\n{describe(load_experiment(options.file))}" if options.file else "")
        return 0
    if options.file is None or options.workdir is None:
        raise ValueError("train needs an experiment file and a --workdir")
    # Whether this is one of several processes must be known before JAX is first used, as the file may do.
    if options.distributed is not None:
        _join(options.distributed)
    experiment = override(load_experiment(options.file), fields)

    import jax

    from mmgen_jax.train.distributed import Interrupted
    from mmgen_jax.train.loop import fit

    if options.advice and jax.default_backend() == "cpu":
        print(f"mmgen: {options.advice}", file=sys.stderr)
    try:
        fit(experiment, options.workdir)
    except Interrupted as interrupted:
        print(f"mmgen: {interrupted}", file=sys.stderr)
        return STOPPED
    return 0


def sample(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """Generate examples, or the missing parts of given ones, as files; --model.NAME VALUE says how a model samples."""
    from mmgen_jax.generate import generate

    _keep_compiled_programs()
    generate(options, fields)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Measure a run with the evaluators of its experiment; prints a table and writes evaluation.json."""
    from mmgen_jax.data.loader import load
    from mmgen_jax.run import load_run
    from mmgen_jax.train.loop import evaluate as measure
    from mmgen_jax.train.loop import evaluation_data
    from mmgen_jax.train.record import write_evaluation

    _keep_compiled_programs()
    experiment, state = load_run(options.run, options.experiment, options.step)
    if not experiment.evaluators:
        raise ValueError(f"the experiment of {options.run} has no evaluators")
    source, step = experiment.data.source("train"), int(state.step)
    train_set = load(source, experiment.model.modalities) if experiment.workers is None else None
    split = evaluation_data(experiment, source, train_set, options.run)
    values = measure(experiment, state.variables, step, split)
    write_evaluation(options.run, step, values, experiment)
    for name, value in values.items():
        print(f"{name:<{max(map(len, values))}}  {value:.6g}")
    return 0


def report(options: argparse.Namespace) -> int:
    """Write one page about a run, report.html: curves, examples, sound, clips and the table of metrics."""
    from mmgen_jax.report.page import write

    print(write(options.run, options.experiment, options.beside))
    return 0


def compare(options: argparse.Namespace) -> int:
    """One table of the evaluations of several runs, of any families; best values marked where intervals lie apart."""
    from mmgen_jax.config import write_text
    from mmgen_jax.report import compare as comparing

    found = comparing.compare(options.runs, options.only.split(",") if options.only else ())
    if unknown := [out for out in options.out if out.suffix not in comparing.WRITERS]:
        raise ValueError(f"--out {unknown[0]} must end with one of {', '.join(comparing.WRITERS)}")
    print(comparing.as_markdown(found), end="")
    for out in options.out:
        write_text(out, comparing.WRITERS[out.suffix](found))
    return 0


def data(options: argparse.Namespace) -> int:
    """Prepare a data set and say what is in it."""
    if options.data == "digits":
        from mmgen_jax.data import Digits

        dataset = Digits()
    else:
        from mmgen_jax.config import load_experiment

        dataset = load_experiment(options.data).data
    print(dataset)
    for split in ("train", "test"):
        source = dataset.source(split)
        print(f"{split}: {len(source)} examples, the first of them:")
        for name, value in source[0].items() if len(source) else ():
            print(f"  {name}: {_describe(value)}")
    return 0


def _describe(value: Any) -> str:
    if isinstance(value, str | bytes):
        return repr(value)
    return f"{value.dtype} {list(value.shape)}" if hasattr(value, "shape") else f"{type(value).__name__} {value!r:.60}"


def _join(values: Sequence[str]) -> None:
    from mmgen_jax.train.distributed import join

    if len(values) not in (0, 3) or not all(value.isdigit() for value in values[1:]):
        raise ValueError(f"--distributed takes nothing, or COORDINATOR COUNT INDEX, not {' '.join(values)!r}")
    join(*values[:1], *map(int, values[1:]))


def _keep_compiled_programs() -> None:
    from mmgen_jax.train.loop import keep_compiled_programs

    keep_compiled_programs()


def _is_users(error: BaseException) -> bool:
    """Whether the error is the sentence of a check, raised by this package, rather than a bug or a library's error."""
    if isinstance(error, OSError | FloatingPointError):
        return True
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("mmgen_jax", "__main__")


if __name__ == "__main__":
    sys.exit(main())
