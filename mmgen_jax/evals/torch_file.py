"""Arrays out of a file of PyTorch's old format, as plain bytes: nothing that the file says is ever executed.

Such a file is five pickles (a number, a version, the sizes of types, the dictionary of parameters, the names of the
storages) and then, in the order of these names, each storage: the number of its values, 8 bytes, and the values. A
parameter is a storage seen in a shape, from an offset and in strides.

A pickle is a program, and whoever runs it runs what its author wrote. Here its instructions are only read, by a machine
that knows those few that build numbers, strings, tuples and dictionaries. What would call something becomes a tuple of
what it would have called and with what; any other instruction is an error.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
TYPES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
}
PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "GLOBAL"}  # whose argument is the value
FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
MARK = object()


class Machine:
    """What is left of the machine that a pickle is a program for."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken off with it."""
        at = len(self.stack) - 1 - next(i for i, item in enumerate(reversed(self.stack)) if item is MARK)
        items, self.stack[at:] = self.stack[at + 1 :], []
        return items

    def do(self, name: str, argument: Any) -> None:
        """One instruction. Raises ValueError if it is none of those that are known."""
        stack = self.stack
        if name in PLAIN:
            stack.append(argument)
        elif name in FIXED:
            stack.append(FIXED[name]())
        elif name == "MARK":
            stack.append(MARK)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(self.marked()))
        elif name in ("APPEND", "APPENDS"):
            items = self.marked() if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.marked() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "REDUCE":  # would call stack[-2] with stack[-1]
            arguments, called = stack.pop(), stack.pop()
            stack.append({} if called == "collections OrderedDict" and not arguments else (called, arguments))
        elif name == "BUILD":  # would give an object its attributes
            stack.pop()
        elif name not in ("PROTO", "STOP", "BINPERSID"):  # a name of something outside stays as it is
            raise ValueError(f"there is the instruction {name} in it, which arrays do not need")


def read_plain(file: BinaryIO) -> Any:
    """The next pickle in a file, as numbers, strings, tuples, lists and dictionaries."""
    machine = Machine()
    for instruction, argument, _ in pickletools.genops(file):
        machine.do(instruction.name, argument)
    return machine.stack.pop()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The parameters in a file of PyTorch's old format, by name, in the shape that they have there.

    Raises:
        ValueError: it is no such file, or holds anything but arrays.
    """
    try:
        with path.open("rb") as file:
            if read_plain(file) != MAGIC:
                raise ValueError("it does not begin like one")
            _version, _sizes, described, keys = (read_plain(file) for _ in range(4))
            kinds = {storage[2]: TYPES[storage[1]] for _, (storage, *_) in described.values()}
            storages = {}
            for key in keys:
                count = int(np.frombuffer(file.read(8), "<i8")[0])
                storages[key] = np.frombuffer(file.read(count * kinds[key].itemsize), kinds[key])
        return {name: seen(storages[storage[2]], *where[:3]) for name, (_, (storage, *where)) in described.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
        raise ValueError(f"{path} is not a file of arrays of PyTorch's old format: {error}") from None


def seen(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A copy of values of a storage [n] in a shape. Raises ValueError if they are not in it."""
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if offset < 0 or min(strides, default=0) < 0 or (0 not in shape and last >= len(storage)):
        raise ValueError(f"values up to {last} of a storage of {len(storage)} are asked for")
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
