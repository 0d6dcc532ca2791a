"""Texts against what they should say, by sacrebleu (Post 2018) and jiwer, which `pip install "mmgen_jax[text]"` brings.

Both are asked with their own defaults: BLEU with the tokeniser 13a and exponential smoothing; chrF of characters up to
six in a row, and chrF++ with words up to two.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

Texts = Sequence[str]


def library(name: str) -> Any:
    """The module of that name.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f'text metrics need {name}: pip install "mmgen_jax[text]"') from None


def bleu(made: Texts, *references: Texts, **options: Any) -> float:
    """BLEU in 0..100 of a corpus, against one or several references for each text; `options` are sacrebleu's."""
    return library("sacrebleu").corpus_bleu(list(made), [list(texts) for texts in references], **options).score


def chrf(made: Texts, *references: Texts, words: int = 0) -> float:
    """chrF in 0..100 of a corpus; with `words` = 2, chrF++."""
    found = library("sacrebleu").corpus_chrf(list(made), [list(texts) for texts in references], word_order=words)
    return found.score


def word_error_rate(made: Texts, references: Texts) -> float:
    """Words to change, drop or add for each word of the references, over the whole corpus; it may exceed 1."""
    return library("jiwer").wer(list(references), list(made))


def character_error_rate(made: Texts, references: Texts) -> float:
    """The same with characters, spaces among them."""
    return library("jiwer").cer(list(references), list(made))


def distinct(made: Texts, n: int = 2) -> float:
    """Of all runs of n words, the share that are different ones (Li et al. 2016, arXiv:1510.03055); 0 without any."""
    runs = [tuple(words[i : i + n]) for words in map(str.split, made) for i in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 0.0


def exact(made: Texts, references: Texts) -> float:
    """The share of texts that are what they should be."""
    return sum(a == b for a, b in zip(made, references, strict=True)) / len(references)
