"""A progress bar for people who wait at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """The same items; meanwhile a bar named `what`, gone at the end. Nothing where no terminal is."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    yield from bar(items, what, console=Console(stderr=True), transient=True)
