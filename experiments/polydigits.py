"""PolyDigits by every objective on equal terms: the views, networks, likelihood and budget that all of them share.

COMMAND   mmgen train experiments/polydigits_mvtcae.py --workdir runs/mvtcae        or another polydigits_NAME.py
          python experiments/polydigits_table.py --workdir runs/polydigits          all of them, as one table
EXPECTED  after these 600 steps digits are blurred: benchmarks/results/polydigits_table.md has all coherences.
          Published results take 70,000 steps of 256 examples (300 epochs of PolyMNIST): `--steps N --batch-size 256`

The equal terms: a Normal likelihood of deviation 0.25 (decoders of the published Laplace of scale 0.75 first learn the
median of a view, which has no digit, and were still there after 4,000 steps), dense networks (256, 256), codes
of 64 numbers, each objective's own beta, K = 1 for bounds by importance sampling, half of the steps for each of two
stages. The label is not modelled; only judges see it.
"""

import mmgen_jax as mm
from mmgen_jax.nn.mlp import DenseDecoder, DenseEncoder
from mmgen_jax.vae.joint import JointModel
from mmgen_jax.vae.objectives.base import Objective

STEPS = 600
NETWORKS = {"encoder": DenseEncoder((256, 256)), "decoder": DenseDecoder((28, 28, 3), 256)}
VIEW = mm.Image(28, 28, 3, likelihood=mm.Normal(0.25), **NETWORKS)
VIEWS = {f"m{i}": VIEW for i in range(5)}


def models(steps: int) -> dict[str, JointModel]:
    """All models by the name of their objective, for a training of `steps` steps."""
    half, rising = max(1, steps // 2), max(1, steps // 4)
    looser = {"samples": 1, "estimator": "iwae"}
    return {
        "mvae": vae(mm.vae.MVAE()),
        "mmvae": vae(mm.vae.MMVAE(**looser)),
        "mopoe": vae(mm.vae.MoPoE()),
        "mmjsd": vae(mm.vae.MMJSD()),
        "mvtcae": vae(mm.vae.MVTCAE(alpha=5 / 6)),
        "crmvae": vae(mm.vae.CRMVAE()),
        "gpoe": vae(mm.vae.ELBO(fusion=mm.vae.GeneralizedProduct())),
        "mmvamp": vae(mm.vae.MMVAMP()),
        "sum_pool": vae(mm.vae.MaskedBound(fusion=mm.vae.SumPooling())),
        "self_attention": vae(mm.vae.MaskedBound(fusion=mm.vae.SelfAttention())),
        "jmvae": vae(mm.vae.JMVAE(alpha=mm.vae.Ramp(0.0, 0.1, rising), beta=mm.vae.Ramp(0.0, 1.0, rising))),
        "telbo": vae(mm.vae.TELBO(first_stage=half)),
        "jnf": vae(mm.vae.JNF(first_stage=half)),
        "dmvae": vae(mm.vae.DMVAE(), private=32),
        "mmvae_plus": vae(mm.vae.MMVAEPlus(**looser), private=32),
        "cmvae": vae(mm.vae.CMVAE(clusters=40, **looser), private=32),
        "nexus": mm.vae.Nexus(modalities=VIEWS, latent=64),
        "mhvae": mm.vae.MHVAE(modalities=VIEWS, levels=(64, 32, 16)),
    }


def vae(objective: Objective, private: int = 0) -> mm.VAE:
    """A shared code of 64 numbers, or, where every view has a private code, of 32."""
    return mm.VAE(
        modalities=VIEWS,
        latent=32 if private else 64,
        private=dict.fromkeys(VIEWS, private) if private else {},
        objective=objective,
    )


def make(name: str, steps: int = STEPS) -> mm.Experiment:
    """The experiment of one objective."""
    return mm.Experiment(
        model=models(steps)[name],
        data=mm.data.PolyDigits(),
        steps=steps,
        batch_size=64,
        optimizer=mm.Optimizer(learning_rate=2e-3, schedule="cosine", warmup=min(50, steps - 1)),
        steps_per_call=10,
        save_every=250,
        evaluators=(mm.evals.Coherence(), mm.evals.Distances()),
        labels={"label": mm.Label(10)},
    )


experiment = make("mvtcae")
