"""Symbols for photographs of 256 x 256 pixels, 16 x 16 of 4,375 kinds: the tokenizer that `coco_tokens.py` stands on.

COMMAND   mmgen train experiments/coco_tokenizer.py --workdir runs/coco_tokenizer
NEEDS     tfds.builder("coco_captions", file_format="array_record").download_and_prepare(), and an accelerator
EXPECTED  not measured here. Without the perceptual and adversarial losses of Esser et al. (2021, arXiv:2012.09841)
          what is fine and irregular comes back smooth

The widths are those of MaskGIT's tokenizer (Chang et al. 2022, arXiv:2202.04200), 128 times 1, 1, 2, 2 and 4. In place
of a codebook the code is rounded (Mentzer et al. 2023, arXiv:2309.15505), so no symbol can die.
"""

import mmgen_jax as mm
from mmgen_jax.nn.grid import GridDecoder, GridEncoder

coco = mm.data.Square(
    mm.data.Tfds(
        "coco_captions", {"image": "image", "text": "captions/text"}, train="train+restval", test="test[:2000]"
    )
)


def tokenizer(side: int, widths: tuple[int, ...], blocks: int, levels: tuple[int, ...]) -> mm.Tokenizer:
    """For pictures of side x side, which the cells of the code halve once for each width but the first."""
    shape, cells = (side, side, 3), side // 2 ** (len(widths) - 1)
    encoder, decoder = GridEncoder(len(levels), widths, blocks, parts=1), GridDecoder(shape, widths, blocks)
    image = mm.Image(*shape, likelihood=mm.Laplace(0.1), encoder=encoder, decoder=decoder)
    return mm.Tokenizer(
        modalities={"image": image},
        cells={"image": (cells, cells)},
        quantizer=mm.tokens.FSQ(levels),
        dtype="bfloat16",
    )


model = tokenizer(256, (128, 128, 256, 256, 512), 2, (7, 5, 5, 5, 5))
tiny = tokenizer(8, (8,), 1, (3, 3))  # for tests

experiment = mm.Experiment(
    model=model,
    data=coco,
    steps=200_000,
    batch_size=64,
    optimizer=mm.Optimizer(learning_rate=1e-4, warmup=5_000, ema=0.9999, clip=1.0),
    steps_per_call=1,
    workers=8,
    save_every=5_000,
    evaluators=(mm.evals.Reconstruction(), mm.evals.Codes()),
)
