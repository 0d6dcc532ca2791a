"""A spoken digit as a waveform by WaveGAN: long kernels, phase shuffle, WGAN-GP (Donahue et al. 2019).

COMMAND   mmgen train experiments/sound_gan.py --workdir runs/wavegan && mmgen report runs/wavegan
EXPECTED  2,000 steps take 19 minutes on a core beside other work; what they make has not been measured. Published, on
          spoken digits of 16,384 samples: 200,000 steps of 64 examples

`mm.gan.presets.wavegan`, an eighth as wide, for a second at 8,000 samples. The class is only seen by judges.
"""

import dataclasses

import mmgen_jax as mm

preset = mm.gan.presets.wavegan()
sound = mm.Audio(8000, rate=8000, features=8)
model = dataclasses.replace(preset, modalities={"audio": sound})

short = dataclasses.replace(sound, samples=80, features=2)
tiny = dataclasses.replace(model, modalities={"audio": short}, noise=4, own=2, width=8, critic_steps=1)  # for tests
adam = mm.Optimizer(learning_rate=1e-4, b1=0.5, b2=0.9)

experiment = mm.Experiment(
    model=model,
    data=mm.data.Digits(),
    steps=2_000,
    batch_size=16 * model.critic_steps,
    optimizer=mm.Players(generator=adam, critic=adam, critic_steps=model.critic_steps, ema=0.995),
    steps_per_call=10,
    save_every=1_000,
    evaluators=(mm.evals.Distances(),),
    labels={"label": mm.Label(10)},
)
