"""Fields of an experiment, edited from the command line: `--steps 2000 --model.latent 32 --mesh.data 4`.

A flag is the path to a field, through dataclasses by name, mappings by key and tuples by position, dashes standing for
underscores. A field's annotation says what its text may be; where that is no help (`Any`, or a class of the experiment
file), its present value does.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import operator
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jax.numpy as jnp

from mmgen_jax.config import Experiment, field_names

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
_UNIONS = (Union, types.UnionType)  # what `Literal[...] | None` and `int | None` are made of
_DTYPE = type(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Field:
    """One field, at any depth: its dotted name, value, type (None: cannot be written as text) and documentation."""

    name: str
    value: Any
    kind: Any
    doc: str


def override(experiment: Experiment, args: Sequence[str]) -> Experiment:
    """The experiment with the fields that `args` names changed: `["--steps", "9", "--model.latent=2"]`.

    Raises:
        ValueError: no such field (the closest names are given), no value, or a value that the field cannot have.
    """
    known = {_plain(field.name): field for field in fields(experiment)}
    changes, rest = {}, list(args)
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        if not flag.startswith("--"):
            raise ValueError(f"{flag!r} is not a flag: fields are set by --NAME VALUE")
        field = known.get(_plain(flag[2:])) or _unknown(flag[2:], list(known))
        if not equals and rest and not rest[0].startswith("--"):
            text = rest.pop(0)
        elif not equals and field.kind is not bool:
            raise ValueError(f"--{field.name} needs a value, {_words(field.kind)}")
        elif not equals:
            text = "true"
        changes[tuple(field.name.split("."))] = _value(field, text)
    return _replace(experiment, changes)


def describe(experiment: Experiment) -> str:
    """The fields with their present values and what they mean, for `--help`."""
    lines = []
    for field in fields(experiment):
        value = getattr(field.value, "__name__", field.value)  # a dtype by its name
        lines.append(f"  --{field.name.replace('_', '-')} {value}  ({_words(field.kind)})")
        lines += textwrap.wrap(field.doc, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def fields(node: Any, name: str = "", hint: Any = Any, doc: str = "") -> Iterator[Field]:
    """Every field below `node` that a text can set."""
    children = list(_children(node))
    for key, *child in children:
        yield from fields(child[0], f"{name}.{key}" if name else key, *child[1:])
    kind = None if children else _kind(hint, node)
    if kind is not None:
        yield Field(name, node, kind, doc)


def _children(node: Any) -> Iterator[tuple[str, Any, Any, str]]:
    """(key, value, annotation, documentation) of what is inside a dataclass, a mapping or a tuple of dataclasses."""
    if isinstance(node, Mapping):
        yield from ((key, item, Any, "") for key, item in node.items())
    elif isinstance(node, tuple) and all(dataclasses.is_dataclass(item) for item in node):
        yield from ((str(i), item, Any, "") for i, item in enumerate(node))
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        try:
            hints = get_type_hints(type(node))
        except NameError:  # annotations are text, and the experiment file that could explain them has been left
            hints = {}
        docs = dict(_docs(type(node)))
        yield from ((key, getattr(node, key), hints.get(key, Any), docs.get(key, "")) for key in field_names(node))


def _docs(cls: type) -> Iterator[tuple[str, str]]:
    """(field, text) from the lines `field: text` or `field, field: text` of a docstring, with those indented below."""
    for match in re.finditer(r"^( *)(\w+(?:, \w+)*): (.*(?:\n\1 +.*)*)", inspect.getdoc(cls) or "", re.MULTILINE):
        yield from ((name, " ".join(match[3].split())) for name in match[2].split(", "))


def _kind(hint: Any, value: Any) -> Any:
    """The type that text is turned into: int, str | None, tuple[int, ...], Literal[...], or None if it cannot be."""
    if isinstance(value, _DTYPE):
        return _DTYPE
    if get_origin(hint) in _UNIONS:
        kinds = [kind for option in get_args(hint) if (kind := _kind(option, None)) is not None]
        return functools.reduce(operator.or_, kinds) if set(kinds) - {type(None)} else None
    if get_origin(hint) is tuple and len(get_args(hint)) == 2 and get_args(hint)[1] is ...:
        return hint if get_args(hint)[0] in _WORDS else None
    if get_origin(hint) is Literal or hint in _WORDS:
        return hint
    return type(value) if value is not None and type(value) in _WORDS else None


def _value(field: Field, text: str) -> Any:
    try:
        return _parse(field.kind, text)
    except ValueError:
        raise ValueError(f"--{field.name} must be {_words(field.kind)}, not {text!r}") from None


def _parse(kind: Any, text: str) -> Any:
    """Raises ValueError for text that is not of the kind."""
    if get_origin(kind) in _UNIONS:
        for option in sorted(get_args(kind), key=lambda option: option is str):  # any text would do for a str
            try:
                return _parse(option, text)
            except ValueError:
                continue
        raise ValueError
    if get_origin(kind) is tuple:
        items = text.strip("()[] ").split(",")
        return tuple(_parse(get_args(kind)[0], item.strip()) for item in items if item.strip())
    words = {bool: {"true": True, "false": False}, type(None): {"none": None}}.get(kind)
    if get_origin(kind) is Literal:
        words = {str(option).lower(): option for option in get_args(kind)}
    if kind is _DTYPE:
        words = {text.lower(): dtype} if isinstance(dtype := getattr(jnp, text, None), _DTYPE) else {}
    if words is None:
        return kind(text)
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def _words(kind: Any) -> str:
    """What may be written, for an error message."""
    if get_origin(kind) in _UNIONS:
        return " or ".join(_words(option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list with commas, each {_words(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(kind))
    return _WORDS.get(kind, "a dtype such as bfloat16")


def _unknown(name: str, known: list[str]) -> Field:
    same = [other for other in known if other.split(".")[-1] == _plain(name)]
    close = same or difflib.get_close_matches(_plain(name), known, n=3, cutoff=0.5)
    inside = [other for other in known if other.startswith(_plain(name) + ".")]
    if inside:
        raise ValueError(f"{name!r} cannot be set as a whole; it has the fields {', '.join(inside)}")
    hint = f"did you mean {' or '.join(close)}?" if close else "--help lists the fields"
    raise ValueError(f"there is no field {name!r} that can be set; {hint}")


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _replace(node: Any, changes: Mapping[tuple[str, ...], Any]) -> Any:
    """The node with the fields at the given paths changed, all at once: they may only be valid together."""
    if () in changes:
        return changes[()]
    below: dict[str, dict] = {}
    for (key, *path), value in changes.items():
        below.setdefault(key, {})[tuple(path)] = value
    if isinstance(node, Mapping):
        return {key: _replace(item, below[key]) if key in below else item for key, item in node.items()}
    if isinstance(node, tuple):
        return tuple(_replace(item, below[str(i)]) if str(i) in below else item for i, item in enumerate(node))
    return dataclasses.replace(node, **{key: _replace(getattr(node, key), inside) for key, inside in below.items()})
