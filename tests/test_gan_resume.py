"""A game that is stopped and goes on ends with the bits of one that never was, whatever it remembers between steps."""

import jax
import numpy as np
import pytest
from train_fakes import Sends

import mmgen_jax as mm
from mmgen_jax.train.checkpoint import Checkpoints
from mmgen_jax.train.distributed import Interrupted

INTERVAL, STOP, STEPS = (
    7,
    6,
    10,
)  # the stop is amid the 7 updates of ADA, the 5 of R1, the 9 of R2, and the 4 of path lengths


def experiment(**changes):
    rng = np.random.default_rng(0)
    examples = {"image": rng.random((40, 4, 4, 1)).astype(np.float32)}
    adam = mm.Optimizer(learning_rate=1e-2, b1=0.0, b2=0.99, schedule="cosine", final=1e-3)
    model = mm.GAN(
        modalities={"image": mm.Image(4, 4, 1, features=4)},
        noise=4,
        own=2,
        width=8,
        networks=mm.gan.DCGAN(),
        penalties=(mm.gan.R1(every=5), mm.gan.R2(every=9)),
        lecam=mm.gan.LeCam(),
        path_length=mm.gan.PathLength(every=4),
        augment=mm.gan.DiffAugment(("image",)),
        ada=mm.gan.ADA(target=-0.99, interval=INTERVAL, kimg=0.5),  # so that its p rises at once
        critic_steps=2,
        spectral="both",
    )
    return mm.Experiment(
        model=model,
        data=mm.data.Arrays(examples, examples),
        steps=STEPS,
        batch_size=16,
        mesh=mm.Mesh(data=1),
        optimizer=mm.Players(generator=adam, critic=adam, critic_steps=2, warmup=2, ema=0.9),
        steps_per_call=3,
        log_every=3,
        **changes,
    )


def test_a_game_that_is_stopped_and_goes_on_is_the_same_game(tmp_path):
    whole = mm.fit(experiment(), tmp_path / "whole")
    cut = experiment(evaluators=(Sends(),), eval_every=STOP - 2)
    with pytest.raises(Interrupted, match=f"stopped at step {STOP}"):
        mm.fit(cut, tmp_path / "cut")
    assert Checkpoints(tmp_path / "cut" / "checkpoints").latest == STOP
    resumed = mm.fit(cut, tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)

    # What there is to remember has been moving, and was amid its interval at the stop.
    assert all(2 * STOP % every for every in (INTERVAL, *(penalty.every for penalty in cut.model.penalties)))
    ada, lecam = whole.stats["ada"], whole.stats["lecam"]
    assert ada.p == pytest.approx(2 * 8 * INTERVAL / 500) and ada.updates == 2 * STEPS % INTERVAL
    assert lecam["image"].real != 0 and lecam["image"].fake != 0 and whole.stats["path"]["image"] > 0
