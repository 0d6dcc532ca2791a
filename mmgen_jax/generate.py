"""What `mmgen sample` does: examples of a run, or the missing parts of given ones, as files that people can look at."""

from __future__ import annotations

import inspect
import json
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmgen_jax import vae
from mmgen_jax.config import Experiment
from mmgen_jax.data.loader import load
from mmgen_jax.latent import Latent
from mmgen_jax.overrides import override
from mmgen_jax.run import load_run
from mmgen_jax.types import Modality, Model, Variables

# Priors that can be fitted, by what they are called on the command line.
PRIORS = {"mixture": vae.GaussianMixturePrior, "flow": vae.FlowPrior, "flow-matching": vae.FlowMatchingPrior}


def generate(options: Namespace, fields: Sequence[str]) -> None:
    """Write what the options of `mmgen sample` ask for.

    fields: `--model.NAME VALUE`, of how the model samples: those that its parameters do not depend on.
    Raises ValueError, or OSError for a path: a mistake in them, found before anything is written.
    """
    if options.n < 1:
        raise ValueError(f"--n must be at least 1, not {options.n}")
    experiment, state = load_run(options.run, options.experiment, options.step)
    model, out = changed(experiment, fields), options.out or options.run / "samples"
    given = {name: encode(model.modalities, name, text) for name, text in map(_name_value, options.given)}
    targets = None if options.targets is None else tuple(options.targets.split(","))
    _check_names(model.modalities, targets or ())
    _check_nothing_there(out, model.modalities)
    given = {name: jnp.broadcast_to(x, (options.n, *x.shape)) for name, x in given.items()}
    more = {}
    if options.prior is not None:
        more["prior"] = _fitted(options.prior, experiment, state.variables)
    if options.weak is not None:
        more["weak"] = _weak(options, model)

    @jax.jit
    def draw(variables: Variables, key: Any, given: Any, more: Any) -> Any:
        return model.sample(variables, key, options.n, given=given or None, targets=targets, **more)

    made = draw(state.variables, jax.random.key(options.seed), given, more)
    _write(out, model.modalities, jax.device_get(made))


def changed(experiment: Experiment, fields: Sequence[str]) -> Model:
    """The experiment's model with the fields that `fields` names changed: `["--model.guidance.scale", "2"]`.

    Raises ValueError: as `override`, or for a field that the parameters depend on.
    """
    model = override(experiment, fields).model
    before, after = (jax.eval_shape(m.init, jax.random.key(0)) for m in (experiment.model, model))
    if before != after:
        raise ValueError(f"{' '.join(fields)} asks for a model with other parameters than those that the run has")
    return model


def encode(modalities: Mapping[str, Modality], name: str, text: str) -> np.ndarray:
    """What --given says, as the modality's array: a text, a path, the name of a class, a number or a list of them.

    Raises ValueError, or OSError for a path, if the modality cannot be given that.
    """
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


def _fitted(prior: str, experiment: Experiment, variables: Variables) -> Any:
    """The prior fitted to the model's codes of the training split; ValueError for models that have none."""
    model = experiment.model
    if not hasattr(model, "fit_prior"):
        raise ValueError(f"--prior: there are no codes of a {type(model).__name__} that a prior could be fitted to")
    data = load(experiment.data.source("train"), model.modalities)
    return model.fit_prior(variables, data, PRIORS[prior](), jax.random.key(0))


def _weak(options: Namespace, model: Model) -> Variables:
    """The variables of the step --weak; ValueError for models that cannot be guided away from what is weaker."""
    guided = model.second if isinstance(model, Latent) else model
    if "weak" not in inspect.signature(guided.sample).parameters:
        raise ValueError(f"--weak: a {type(guided).__name__} cannot be guided away from an earlier step, a Flow can")
    if guided.guidance.scale == 1:
        raise ValueError("--weak changes nothing at a guidance scale of 1; set it by --model.guidance.scale or alike")
    return load_run(options.run, options.experiment, options.weak)[1].variables


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
    """Each example of each modality as a file of its own."""
    out.mkdir(parents=True, exist_ok=True)
    made = [name for name in modalities if name in values]
    for name in made:
        for i, x in enumerate(values[name]):
            rendering = modalities[name].render(x)
            (out / f"{name}_{i:03}.{rendering.suffix}").write_bytes(rendering.data)
    print(f"{len(values[made[0]])} examples of {', '.join(made)} in {out}")
