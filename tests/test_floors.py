"""The floors of the house: each part imports only from those below it, and importing the package stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmgen_jax

ROOT = Path(mmgen_jax.__file__).parent
FAMILIES = {"vae", "gan", "diffusion", "tokens"}
# What each part may import of the package, besides itself. Families never import each other.
MAY_IMPORT = {
    "types": set(),
    "rng": {"types"},
    "materialized": set(),
    "nn": {"types", "rng", "materialized"},
    "modalities": {"types", "rng", "nn"},
    **{family: {"types", "rng", "materialized", "nn", "modalities", "train.step"} for family in FAMILIES},
    "latent": {"types", "rng", "modalities"},
    "config": {"types", "rng", "train.optimizer", "train.mesh"},
    "overrides": {"types", "config"},
    "run": {"types", "rng", "config", "train.checkpoint"},
    "progress": set(),
    "allocator": set(),
    "data": {"types", "rng"},
    "train": {"types", "rng", "materialized", "config", "data", "run", "progress"},
    "evals": {"types", "rng", "data", "nn", "train.step", "progress"},
    "generate": {"types", "config", "overrides", "run", "data", "vae", "latent"},
    "report": {"types", "rng", "config", "run", "data", "evals", "train.log", "train.record"},
}
# The lowest of train, which what config imports may use: no circle can come about.
BELOW_CONFIG = {"train.step", "train.optimizer", "train.mesh", "train.manifest", "train.checkpoint"}
HEAVY = {"tensorflow", "tensorflow_datasets", "grain", "matplotlib", "tensorboardX", "PIL", "orbax"}
HEAVY |= {"mlxtend", "skimage"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").replace("__init__", "")


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere, in functions too, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            # `from a import b`: b may be a module or a name in a
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    names = {name.removeprefix("mmgen_jax.") for name in found if name.startswith("mmgen_jax.")}
    return {name for name in names if name in MODULES}


def allowed(part: str, name: str) -> bool:
    """Whether `part` may import `name`: it, what contains it, or (an empty package) what it contains is allowed."""
    floors = MAY_IMPORT[part] | {part}
    return any(f"{name}.".startswith(f"{floor}.") or floor.startswith(f"{name}.") for floor in floors)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("", "__main__")])
def test_a_module_imports_only_from_the_floors_below(module):
    part = module.partition(".")[0]
    for name in imports(MODULES[module]):
        assert allowed(part, name), f"{module} imports {name}, but {part} may import only {sorted(MAY_IMPORT[part])}"


@pytest.mark.parametrize("module", sorted(BELOW_CONFIG & set(MODULES)))
def test_what_config_stands_on_does_not_import_it(module):
    assert imports(MODULES[module]) <= BELOW_CONFIG | {"train", "types", "rng", "materialized"}


def test_the_package_file_is_public_names_only():
    tree = ast.parse(MODULES[""].read_text())
    names = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr, ast.FunctionDef)
    assert all(isinstance(node, names) for node in tree.body)


def test_importing_any_of_it_imports_nothing_heavy():
    """Every module, in a process of its own: what costs seconds is imported by the functions that use it."""
    modules = ["mmgen_jax", *(f"mmgen_jax.{name}" for name in MODULES if name)]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} & HEAVY == set()


def test_nothing_that_executes_what_it_reads():
    """No pickle, no eval, no unsafe loaders: what a run directory or a data file holds is never executed."""
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
                assert not {"pickle", "marshal", "shelve", "dill", "yaml", "joblib"} & set(names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
