"""Strict JAX for every test: eight emulated devices, no silent rank promotion, a compile cache across runs."""

import importlib.metadata
import os
import signal
import tempfile
from pathlib import Path

import jax
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes away from what runs in the background
# A third less time to compile; later versions have no such flag.
if importlib.metadata.version("jax").startswith("0.10."):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
os.environ["MMGEN_CACHE"] = "off"  # no split that an earlier run of the tests kept
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiling is what most of the time goes into. The processes that tests start must compute the same bits.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), "mmgen_jax_test_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Compiled programs hold memory maps, of which a process may have only so many: compiling then ends it."""
    yield
    jax.clear_caches()


def pytest_addoption(parser: pytest.Parser) -> None:
    default = Path(__file__).parent / "golden"
    parser.addoption("--golden", type=Path, default=default, help="folder of reference numbers, one sub-folder an area")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `golden_<area>` runs once for each .npz file of that area.

    A test file may say with a function `reads(path) -> bool` which of them are about what it tests.
    """
    for name in metafunc.fixturenames:
        if name.startswith("golden_"):
            area = name.removeprefix("golden_")
            files = sorted((metafunc.config.getoption("--golden") / area).glob("*.npz"))
            files = list(filter(getattr(metafunc.module, "reads", None), files))
            metafunc.parametrize(name, files, ids=[f"{area}-{f.stem}" for f in files])
