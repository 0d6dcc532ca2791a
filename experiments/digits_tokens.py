"""One token transformer of a digit as picture, clip, sound, sentence and label: any of them from any others.

COMMAND   mmgen train experiments/digits_tokenizer.py --workdir runs/digits_tokenizer
          mmgen train experiments/digits_tokens.py --workdir runs/digits_tokens && mmgen report runs/digits_tokens
EXPECTED  sound given label 0.94, text given label 0.99, label given sound 0.98, picture given label or text 0.8, label
          given picture 0.64, all five agree in 0.61 of samples out of nothing; one run. On two quiet CPU cores 2,500
          steps took 18.6 minutes and measuring 4.8, with a step that is 1.3 times as fast since

Sentences and labels are written, the rest is filled in. `--first.image DIR` takes a tokenizer from elsewhere.
"""

import digits_tokenizer

import mmgen_jax as mm
from mmgen_jax.data.builders.facts import DIGITS, VOCABULARY


def tokens(tokenizer: mm.Tokenizer, width: int, depth: int, heads: int) -> mm.Tokens:
    """A transformer of that size over the symbols that `tokenizer` makes."""
    symbols = {"text": mm.Text(20, vocabulary=mm.Wordlist(VOCABULARY)), "label": mm.Label(10, names=DIGITS)}
    return mm.Tokens(
        modalities={**tokenizer.modalities, **symbols},
        first=dict.fromkeys(tokenizer.modalities, tokenizer),
        width=width,
        depth=depth,
        heads=heads,
        tasks=mm.tokens.Tasks(autoregressive=0.4),
        decoding={"video": mm.tokens.MaskGIT(10), "image": mm.tokens.MaskGIT(8), "audio": mm.tokens.MaskGIT(8)},
    )


first = digits_tokenizer.experiment.model
model = tokens(first, width=128, depth=5, heads=4)
tiny = tokens(first, width=16, depth=1, heads=2)  # for tests

experiment = mm.Experiment(
    model=model,
    data=mm.data.Digits(),
    first=dict.fromkeys(first.modalities, "runs/digits_tokenizer"),
    steps=3000,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=2e-3, schedule="cosine", warmup=100, ema=0.99, clip=1.0),
    steps_per_call=10,
    log_every=20,
    save_every=1000,
    evaluators=(mm.evals.Coherence(subsets="single"), mm.evals.Facts(), mm.evals.Distances()),
)
