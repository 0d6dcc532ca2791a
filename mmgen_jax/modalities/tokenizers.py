"""Between strings and ids.

Id 0 is padding and id 1 the end of a text; both belong to `Text`. A tokenizer's own ids run from 2 to size + 1.
"""

from __future__ import annotations

import dataclasses
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
