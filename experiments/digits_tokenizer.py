"""Symbols for a digit's picture, clip and sound: the tokenizers that `digits_tokens.py` stands on.

COMMAND   mmgen train experiments/digits_tokenizer.py --workdir runs/digits_tokenizer
EXPECTED  not measured yet: this file trains, but no whole run of it has been looked at

Finite scalar quantisation: 1,000 codes, none of which can die. A picture becomes 7 x 7 of them, a second of sound 16
and a clip 2 x 8 x 8.
"""

import mmgen_jax as mm
from mmgen_jax.nn.grid import GridDecoder, GridEncoder

quantizer = mm.tokens.FSQ((8, 5, 5, 5))


def networks(shape: tuple[int, ...], widths: tuple[int, ...], fold: int) -> dict[str, object]:
    """An encoder to a grid of vectors that the quantiser takes, and the decoder back."""
    options = {"widths": widths, "blocks": 1, "fold": fold}
    return {
        "encoder": GridEncoder(quantizer.width, **options, parts=1),
        "decoder": GridDecoder(shape, **options),
    }


def tokenizer(small: int) -> mm.Tokenizer:
    """Its networks have layers of that width, and of twice as much."""
    modalities = {
        "image": mm.Image(28, 28, 1, patch=4, **networks((28, 28, 1), (small, 2 * small), 2)),
        "video": mm.Video(8, 32, 32, 1, fps=8, tubelet=(4, 4, 4), **networks((8, 32, 32, 1), (2 * small,), 4)),
        "audio": mm.Audio(8000, rate=8000, mels=40, **networks((63, 40), (2 * small, 2 * small), 2)),
    }
    cells = {"image": (7, 7), "video": (2, 8, 8), "audio": (16,)}
    return mm.Tokenizer(modalities=modalities, cells=cells, quantizer=quantizer)


model, tiny = tokenizer(24), tokenizer(4)  # tiny: for tests

experiment = mm.Experiment(
    model=model,
    data=mm.data.Digits(),
    steps=1000,
    batch_size=32,
    optimizer=mm.Optimizer(learning_rate=3e-3, schedule="cosine", warmup=50, clip=1.0),
    steps_per_call=10,
    log_every=10,
    save_every=500,
    evaluators=(mm.evals.Reconstruction(), mm.evals.Codes()),
)
