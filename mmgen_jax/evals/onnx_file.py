"""The weights in a file of the ONNX format: its arrays alone, not what is computed with them.

Such a file is one message of Protocol Buffers, a list of fields: a number that is field << 3 | kind, then a number
(kind 0), 8 bytes (1), a length and so many bytes (2), or 4 bytes (5). Numbers have seven bits a byte, the lowest first,
and the eighth says that there is more. The graph is field 7 of the file, its arrays are fields 5 of the graph, and of
an array 1 are the dimensions, 2 its type, 8 its name and 9 its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

GRAPH, ARRAY, DIMENSIONS, TYPE, NAME, CONTENT = 7, 5, 1, 2, 8, 9
TYPES = {1: np.dtype("<f4"), 6: np.dtype("<i4"), 7: np.dtype("<i8"), 11: np.dtype("<f8")}
FIXED = {1: 8, 5: 4}  # bytes of a kind


def read_onnx(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name. Raises ValueError if the file is none, or has one of another type or without its bytes."""
    try:
        graphs = [part for number, part in fields(path.read_bytes()) if number == GRAPH]
        return dict(array(part) for graph in graphs for number, part in fields(graph) if number == ARRAY)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable ONNX file: {error!r}") from None


def number(content: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field, its number or its bytes) of all fields of a message."""
    at = 0
    while at < len(content):
        tag, at = number(content, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = number(content, at)
            yield field, value
            continue
        size, at = number(content, at) if kind == 2 else (FIXED[kind], at)
        if at + size > len(content):
            raise ValueError(f"it ends before field {field} does")
        yield field, content[at : at + size]
        at += size


def array(content: bytes) -> tuple[str, np.ndarray]:
    """(name, values) of an array."""
    parts = list(fields(content))
    once = dict(parts)
    shape: list[int] = []
    for field, value in parts:
        if field == DIMENSIONS:  # one by one, or all in one field
            at, packed = 0, value if isinstance(value, bytes) else b""
            shape += [] if isinstance(value, bytes) else [value]
            while at < len(packed):
                size, at = number(packed, at)
                shape.append(size)
    return once[NAME].decode(), np.frombuffer(once[CONTENT], TYPES[once[TYPE]]).reshape(shape)
