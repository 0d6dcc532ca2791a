"""Symbols for a digit's picture, clip and sound: the tokenizers that `digits_tokens.py` stands on.

COMMAND   mmgen train experiments/digits_tokenizer.py --workdir runs/digits_tokenizer
EXPECTED  1 min 40 s on two CPU cores; of each modality all 64 symbols are in use
          (perplexity 51 of pictures, 61 of clips, 60 of sounds), and the mean square error of what comes back is
          0.014, 0.026 and 0.040

The networks are those of `digits_codes.py`, with a code that is rounded (finite scalar quantisation, none of whose 64
symbols can die): 16 symbols for a picture, 20 for a clip, 16 for a second of sound, each of which is about all of it.
"""

import dataclasses

import digits_codes

import mmgen_jax as mm

experiment = dataclasses.replace(
    digits_codes.experiment,
    model=mm.Tokenizer(
        modalities=digits_codes.modalities,
        cells={"image": (16,), "video": (20,), "audio": (16,)},
        quantizer=mm.tokens.FSQ((8, 8)),
    ),
    steps=2000,
    evaluators=(mm.evals.Reconstruction(), mm.evals.Codes()),
)
