"""The inside of a model as HTML: two tables of modalities against modalities."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mmgen_jax.report.looking import Looks
from mmgen_jax.report.parts import card, heat, part, row, section, table


def inside(names: Sequence[str], looks: Looks) -> str:
    """Both tables as a section; nothing if there is none."""
    parts = [follows(names, looks) if looks.follows else "", attention(names, looks)]
    return section("Inside", "".join(parts)) if any(parts) else ""


def follows(names: Sequence[str], looks: Looks) -> str:
    """The table of attribution."""
    targets = [name for name in names if any(target == name for _, target in looks.follows)]
    rows = [
        row(html.escape(f"without {given}"), [heat(looks.follows.get((given, target))) for target in targets])
        for given in names
    ]
    text = (
        f"Of {looks.examples} test examples all was given but one modality (column), which was made of the others, and "
        "then all but one more (row). In per cent: how much that changes what is made, against giving nothing at all. "
        "What others say too can be left out, so a small number does not mean that it says nothing."
    )
    return part("What answers follow", card(table(["", *targets], rows, "heat")), text)


def attention(names: Sequence[str], looks: Looks) -> str:
    """The table of attention, below it what the same attention for every token would be."""
    if looks.attention is None:
        return ""
    rows = [
        row(html.escape(f"making {name}"), [heat(float(share)) for share in shares])
        for name, shares in zip(names, looks.attention, strict=True)
    ]
    total = sum(looks.tokens.values())
    rows.append(row("share of the tokens", [heat(looks.tokens[name] / total) for name in names]))
    text = (
        "Where the tokens of a modality (row) look while it is made of all others (column): the mean over heads, "
        f"blocks and {looks.examples} test examples. Below is what each would get if all tokens were looked at alike."
    )
    return part("Where it looks", card(table(["", *names], rows, "heat")), text)
