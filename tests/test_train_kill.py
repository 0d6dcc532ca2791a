"""A run that is killed again and again ends with the bits of one that never was."""

import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import mmgen_jax as mm

EXPERIMENT = """
import numpy as np
import mmgen_jax as mm

rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
experiment = mm.Experiment(
    model=mm.VAE(modalities={"a": mm.Vector(4, features=64), "b": mm.Vector(4, features=64)}, latent=4),
    data=mm.data.Arrays({"a": rows, "b": rows[:, ::-1].copy()}),
    steps=STEPS, batch_size=64, steps_per_call=50, log_every=50, save_every=250,
    optimizer=mm.Optimizer(ema=0.99),
)
"""
STEPS, KILLS = 12_000, 10


def start(folder: Path, run: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mmgen_jax", "train", str(folder / "e.py"), "--workdir", str(folder / run)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_bit(tmp_path):
    (tmp_path / "e.py").write_text(EXPERIMENT.replace("STEPS", str(STEPS)))
    assert start(tmp_path, "whole").wait() == 0
    moments, killed, metrics = random.Random(0), 0, tmp_path / "killed" / "metrics.jsonl"
    for _ in range(KILLS):
        lines = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        process = start(tmp_path, "killed")
        # From the first new line of metrics on, so that every life gets somewhere before it ends.
        while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) != lines):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1))
        if process.poll() is None:
            killed += 1
        process.kill()
        process.wait()
    assert start(tmp_path, "killed").wait() == 0
    assert killed >= 3  # a fast machine may be done before the tenth
    whole, cut = (mm.load_run(tmp_path / run, tmp_path / "e.py")[1] for run in ("whole", "killed"))
    assert int(whole.step) == int(cut.step) == STEPS
    jax.tree.map(np.testing.assert_array_equal, whole.replace(opt=None), cut.replace(opt=None))
