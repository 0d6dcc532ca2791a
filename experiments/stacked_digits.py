"""A thousand modes: three digits as the colours of one picture, by RpGAN with R1 and R2 on DCGAN's networks.

COMMAND   mmgen train experiments/stacked_digits.py --workdir runs/stacked && mmgen report runs/stacked
          mmgen train experiments/stacked_digits_dcgan.py --workdir runs/stacked_dcgan    what it is to be compared with
          mmgen compare runs/stacked runs/stacked_dcgan --out stacked.html
          the whole protocol, on a GPU: --data.digits mnist --steps 100000
EXPECTED  773 of the 1,000 modes, with a divergence of 1.35; the plain DCGAN 1 mode and 6.91, all its pictures alike.
          One run of each, 17 and 12 minutes on one CPU core each, measuring included

The protocol of Stacked MNIST (`mm.data.StackedDigits`, `mm.evals.Modes`): 26,000 samples, of which a perfect generator
would show all 1,000 modes with a divergence of 0.0192. Published at that number of samples: DCGAN 99 modes and 3.40,
PacGAN 1,000 and 0.06 (Lin et al. 2018, arXiv:1712.04086), RpGAN with R1 and R2 1,000 and 0.078, with the original loss
in its place 693 and 0.93 (Huang et al. 2025, arXiv:2501.05441).
"""

import dataclasses

import mmgen_jax as mm
from mmgen_jax.gan.losses import Loss
from mmgen_jax.gan.penalties import Penalty

picture = mm.Image(28, 28, 3, fold=2, features=64)


def make(loss: Loss, penalties: tuple[Penalty, ...], adam: mm.Optimizer) -> mm.Experiment:
    """The experiment: networks, data, budget and measurement are the same for all losses."""
    return mm.Experiment(
        model=mm.GAN(
            modalities={"image": picture}, noise=64, own=16, loss=loss, penalties=penalties, networks=mm.gan.DCGAN()
        ),
        data=mm.data.StackedDigits(),
        steps=8_000,
        batch_size=64,
        optimizer=mm.Players(generator=adam, critic=adam, warmup=100, ema=0.999),
        steps_per_call=20,
        log_every=100,
        save_every=1_000,
        evaluators=(mm.evals.Modes(),),
        labels={"label": mm.Label(1000)},
    )


experiment = make(
    loss=mm.gan.RpGAN(),
    penalties=(mm.gan.R1(gamma=1.0), mm.gan.R2(gamma=1.0)),
    adam=mm.Optimizer(learning_rate=1e-3, b1=0.0, b2=0.99, schedule="cosine"),
)
small = {"image": dataclasses.replace(picture, features=4)}
tiny = dataclasses.replace(experiment.model, modalities=small)  # for tests
