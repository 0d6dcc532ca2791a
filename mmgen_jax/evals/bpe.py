"""Texts as the symbols of CLIP: pairs of bytes that were merged over and over (Sennrich et al. 2016, arXiv:1508.07909).

A word is its bytes, each written as a character that can be seen, the last one with "</w>". Of all pairs that stand
side by side the one that comes first in the list of merges becomes one symbol, as long as there is any. The list alone
says the numbers of the symbols:

    256 bytes, 256 bytes that end a word, one for each merge, start of the text, end of the text                (1)

Letters are taken small and white space is one space, as CLIP does (Radford et al. 2021, arXiv:2103.00020).
"""

from __future__ import annotations

import dataclasses
import functools
import html
import re
from pathlib import Path

import numpy as np

END = "</w>"
WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


@functools.cache
def letters() -> dict[int, str]:
    """How each byte is written: those that can be seen as they are, and first; all others from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


@dataclasses.dataclass(frozen=True)
class BytePairs:
    """merges: pairs of symbols, the first to be merged first."""

    merges: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: str | Path) -> BytePairs:
        """From a text of one pair a line, as `merges.txt` is; a first line that begins with # says its version.

        Raises ValueError if there is no such file, or a line is no pair.
        """
        try:
            lines = Path(path).read_text(encoding="utf8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"merges cannot be read from {path}: {error}") from None
        pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        if wrong := next((pair for pair in pairs if len(pair) != 2), None):
            raise ValueError(f"{path} must have two symbols in a line, not {' '.join(wrong)!r}")
        return cls(tuple(pairs))

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Equation (1), without start and end."""
        single = list(letters().values())
        symbols = [*single, *(letter + END for letter in single), *(a + b for a, b in self.merges)]
        return {symbol: i for i, symbol in enumerate(symbols)}

    @functools.cached_property
    def ranks(self) -> dict[tuple[str, str], int]:
        return {pair: i for i, pair in enumerate(self.merges)}

    @property
    def size(self) -> int:
        """How many symbols there are, start and end among them."""
        return 512 + len(self.merges) + 2

    def word(self, word: str) -> list[str]:
        """The symbols of a word."""
        parts = [letters()[byte] for byte in word.encode()]
        parts[-1] += END
        while pairs := [pair for pair in zip(parts, parts[1:], strict=False) if pair in self.ranks]:
            best, merged, i = min(pairs, key=self.ranks.__getitem__), [], 0
            while i < len(parts):
                two = tuple(parts[i : i + 2]) == best
                merged.append(parts[i] + parts[i + 1] if two else parts[i])
                i += 2 if two else 1
            parts = merged
        return parts

    def encode(self, text: str, length: int) -> np.ndarray:
        """int32 [length]: start, the symbols as far as there is room, end, and ends in place of what is left."""
        words = WORD.findall(html.unescape(text).lower())
        ids = [self.numbers[symbol] for word in words for symbol in self.word(word)]
        row = np.full(length, self.size - 1, np.int32)
        row[: min(len(ids) + 1, length - 1)] = [self.size - 2, *ids][: length - 1]
        return row
