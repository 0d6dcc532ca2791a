"""Between strings and ids.

Id 0 is padding and id 1 the end of a text; both belong to `Text`. A tokenizer's own ids run from 2 to size + 1.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Protocol

FIRST_ID = 2


class Tokenizer(Protocol):
    """A frozen dataclass that splits strings into `size` kinds of tokens."""

    @property
    def size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclasses.dataclass(frozen=True)
class Characters:
    """One token a character of `alphabet`; by default printable ASCII."""

    alphabet: str = "".join(map(chr, range(32, 127)))

    def __post_init__(self) -> None:
        if not self.alphabet or len(set(self.alphabet)) < len(self.alphabet):
            raise ValueError(f"Characters: alphabet must hold characters, each once, not {self.alphabet!r}.")

    @property
    def size(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Raises ValueError for a character outside the alphabet."""
        for character in text:
            if character not in self.alphabet:
                raise ValueError(f"Characters: {character!r} in {text!r} is not in the alphabet {self.alphabet!r}.")
        return [self.alphabet.index(character) + FIRST_ID for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.alphabet[i - FIRST_ID] for i in ids)


@dataclasses.dataclass(frozen=True)
class Bytes:
    """One token a byte of UTF-8: any text at all, two or more tokens for what is not ASCII."""

    @property
    def size(self) -> int:
        return 256

    def encode(self, text: str) -> list[int]:
        return [byte + FIRST_ID for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are no valid UTF-8, as an untrained model makes them, become the replacement character."""
        return bytes(i - FIRST_ID for i in ids).decode(errors="replace")


@dataclasses.dataclass(frozen=True)
class Wordlist:
    """One token a word or punctuation mark of `words`: short sequences for texts of few different words.

    A word is a run of letters, digits and underscores; what is neither a word nor a space is a mark of its own. Spaces
    are not kept: decoded texts have one before every word but the first.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.words or len(set(self.words)) < len(self.words):
            raise ValueError(f"Wordlist: words must be different words and marks, not {self.words!r}.")
        for word in self.words:
            if re.findall(_WORD_OR_MARK, word) != [word]:
                raise ValueError(f"Wordlist: {word!r} is not one word or one mark.")

    @property
    def size(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Raises ValueError for a word that is not in the list."""
        number = {word: i + FIRST_ID for i, word in enumerate(self.words)}
        for word in (words := re.findall(_WORD_OR_MARK, text)):
            if word not in number:
                some = " ".join(self.words[:50]) + (" ..." if self.size > 50 else "")
                raise ValueError(f"Wordlist: {word!r} in {text!r} is none of the {self.size} words: {some}")
        return [number[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        words = [self.words[i - FIRST_ID] for i in ids]
        return "".join(f" {word}" if re.match(r"\w", word) else word for word in words).removeprefix(" ")


_WORD_OR_MARK = r"\w+|[^\w\s]"
