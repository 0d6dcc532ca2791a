"""Photographs and their captions (COCO, Lin et al. 2014, arXiv:1405.0312): either from the other, by one transformer.

COMMAND   mmgen train experiments/coco_tokenizer.py --workdir runs/coco_tokenizer
          mmgen train experiments/coco_tokens.py --workdir runs/coco_tokens
          mmgen sample runs/coco_tokens --given text="A red bus on a street." --n 8
NEEDS     what the tokenizer needs; `--mesh.fsdp 8` splits the parameters over eight devices
EXPECTED  not measured here

A picture is 256 symbols and is filled in, in twelve steps; a caption is its bytes and is written. `--first.image DIR`
takes the tokenizer from elsewhere. Of the five captions of a picture the first is read. One of more bytes than there is
room for stops the training with a sentence that says so; `--model.modalities.text.length` makes room.
"""

import coco_tokenizer

import mmgen_jax as mm


def tokens(first: mm.Tokenizer, length: int, width: int, depth: int, heads: int) -> mm.Tokens:
    """A transformer of that size over what `first` makes of pictures, and captions of less than `length` bytes."""
    return mm.Tokens(
        modalities={**first.modalities, "text": mm.Text(length, vocabulary=mm.Bytes())},
        first={"image": first},
        width=width,
        depth=depth,
        heads=heads,
        tasks=mm.tokens.Tasks(autoregressive=0.4),
        decoding={"image": mm.tokens.MaskGIT(12), "text": mm.tokens.Write(mm.tokens.Choice(top_p=0.9))},
        scales={"text": 3.0},
        dtype="bfloat16",
    )


model = tokens(coco_tokenizer.model, 320, width=768, depth=12, heads=12)
tiny = tokens(coco_tokenizer.tiny, 16, width=16, depth=1, heads=2)  # for tests

experiment = mm.Experiment(
    model=model,
    data=coco_tokenizer.coco,
    first={"image": "runs/coco_tokenizer"},
    steps=300_000,
    batch_size=128,
    optimizer=mm.Optimizer(learning_rate=3e-4, warmup=10_000, b2=0.96, weight_decay=0.045, ema=0.9999, clip=1.0),
    steps_per_call=1,
    workers=8,
    save_every=10_000,
    evaluators=(mm.evals.Texts(),),
)
