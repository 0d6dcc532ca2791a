"""The command line: `mmgen train | sample | evaluate | report | compare | data`, also as `python -m mmgen_jax`.

    mmgen train experiments/digits_vae.py --workdir runs/vae --steps 2000 --model.latent 32
    mmgen sample runs/vae --given text="a thick seven" --n 16
    mmgen evaluate runs/vae
    mmgen report runs/vae
    mmgen compare runs/vae runs/flow --out both.html
    mmgen data experiments/digits_vae.py

A run directory is all that sampling, evaluating and reporting need, unless the experiment has classes of its own: then
its file is given as well, with --experiment.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen_jax.allocator import MISSING, restart_with_tcmalloc

if TYPE_CHECKING:  # what is heavy is imported by the commands, so that --help is quick
    import numpy as np

    from mmgen_jax.config import Experiment
    from mmgen_jax.types import Modality

# Priors that `sample` fits, by what they are called there.
PRIORS = {"mixture": "GaussianMixturePrior", "flow": "FlowPrior", "flow-matching": "FlowMatchingPrior"}
STOPPED = 128 + signal.SIGTERM  # what a shell reports of a process that SIGTERM has ended


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 after a user's mistake (one sentence on stderr), or STOPPED."""
    options, fields = _parser().parse_known_args(args)
    if fields and options.command is not train:
        _parser().error(f"unrecognized arguments: {' '.join(fields)}")
    if args is None and options.command is train and not options.help and not restart_with_tcmalloc():
        options.advice = MISSING
    try:
        return options.command(options, fields) if options.command is train else options.command(options)
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


def sample(options: argparse.Namespace) -> int:
    """Generate examples, or the missing parts of given ones, and write them as files."""
    import jax
    import jax.numpy as jnp

    from mmgen_jax.run import load_run

    if options.n < 1:
        raise ValueError(f"--n must be at least 1, not {options.n}")
    _keep_compiled_programs()
    experiment, state = load_run(options.run, options.experiment, options.step)
    modalities, out = experiment.model.modalities, options.out or options.run / "samples"
    given = {name: encode(modalities, name, text) for name, text in map(_name_value, options.given)}
    targets = None if options.targets is None else tuple(options.targets.split(","))
    _check_names(modalities, targets or ())
    _check_nothing_there(out, modalities)
    given = {name: jnp.broadcast_to(x, (options.n, *x.shape)) for name, x in given.items()}
    fitted = {} if options.prior is None else {"prior": _fit_prior(options.prior, experiment, state.variables)}

    @jax.jit
    def draw(variables: Any, key: Any, given: Any) -> Any:
        return experiment.model.sample(variables, key, options.n, given=given or None, targets=targets, **fitted)

    _write(out, modalities, jax.device_get(draw(state.variables, jax.random.key(options.seed), given)))
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


def encode(modalities: Mapping[str, Modality], name: str, text: str) -> np.ndarray:
    """What --given says, as the modality's array: a text, a path, the name of a class, a number or a list of them.

    Raises ValueError, or OSError for a path, if the modality cannot be given that.
    """
    import numpy as np

    _check_names(modalities, (name,))
    if text.endswith(".npy"):
        try:
            array = np.load(text, allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{text} holds no array of numbers: {error}") from None
        return modalities[name].encode(array)
    try:
        return modalities[name].encode(text)
    except (ValueError, OSError):
        try:
            return modalities[name].encode(np.asarray(json.loads(text)))
        except ValueError:
            pass  # the first error says more
        raise


def _fit_prior(name: str, experiment: Experiment, variables: Any) -> Any:
    """The prior fitted to the model's codes of the training split; ValueError for models that have none."""
    import jax

    from mmgen_jax import vae
    from mmgen_jax.data.loader import load

    model = experiment.model
    if not hasattr(model, "fit_prior"):
        raise ValueError(f"--prior: there are no codes of a {type(model).__name__} that a prior could be fitted to")
    data = load(experiment.data.source("train"), model.modalities)
    return model.fit_prior(variables, data, getattr(vae, PRIORS[name])(), jax.random.key(0))


def _name_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--given must be NAME=VALUE, not {text!r}")
    return name, value


def _check_names(modalities: Mapping[str, Modality], names: Sequence[str]) -> None:
    for name in names:
        if name not in modalities:
            raise ValueError(f"{name!r} is not a modality of this run, which has {', '.join(modalities)}")


def _check_nothing_there(out: Path, names: Iterable[str]) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file")
    for name in names:
        if there := sorted(out.glob(f"{name}_*.*")):
            raise ValueError(f"{there[0]} exists already; choose another --out")


def _write(out: Path, modalities: Mapping[str, Modality], values: Mapping[str, np.ndarray]) -> None:
    """Each example of each modality as a file that people can look at."""
    out.mkdir(parents=True, exist_ok=True)
    made = [name for name in modalities if name in values]
    for name in made:
        for i, x in enumerate(values[name]):
            rendering = modalities[name].render(x)
            (out / f"{name}_{i:03}.{rendering.suffix}").write_bytes(rendering.data)
    print(f"{len(values[made[0]])} examples of {', '.join(made)} in {out}")


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
