"""What devices send one another, read from the compiled program.

Bytes that each of n devices sends in a ring, for a result of b bytes (Thakur, Rabenseifner & Gropp 2005, section 4):

    all-reduce           2 b (n - 1) / n
    all-gather             b (n - 1) / n
    reduce-scatter         b (n - 1)         its result is an n-th of what went in
    all-to-all             b (n - 1) / n
    collective-permute     b
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
INSTRUCTION = re.compile(rf" = (.*?) ({'|'.join(KINDS)})\(")
ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")


def collectives(hlo: str) -> Iterator[tuple[str, int]]:
    """(kind, bytes of the result) of every collective of a program; one in a loop stands there once."""
    for line in hlo.splitlines():
        if found := INSTRUCTION.search(line):
            result, kind = found.groups()
            yield kind, sum(size(*array.groups()) for array in ARRAY.finditer(result))


def size(dtype: str, bits: str | None, shape: str) -> int:
    """Bytes of an array as HLO writes it, such as f32[8,128]."""
    count = math.prod(int(n) for n in shape.split(",") if n)
    return count * (1 if dtype == "pred" else int(bits) // 8)


def sent(kind: str, result: int, devices: int) -> float:
    """Bytes that each device sends."""
    if kind == "collective-permute":
        return result
    share = (devices - 1) / devices
    return result * share * {"all-reduce": 2, "reduce-scatter": devices}.get(kind, 1)
