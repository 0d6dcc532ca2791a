"""The latent space of a model as HTML: a map of it, what codes say of the class, ways through it, its dimensions."""

from __future__ import annotations

import html

import numpy as np

from mmgen_jax.report.cells import PICTURES, cell
from mmgen_jax.report.contents import Contents
from mmgen_jax.report.latents import MOVES, WAY, LatentSpace, suffix
from mmgen_jax.report.parts import card, heat, part, percent, row, section, shown, table, true
from mmgen_jax.report.plots import COLOURS, scatter, short


def latent_space(contents: Contents) -> str:
    """Everything about the codes; nothing if the model has none."""
    space = contents.space
    if space is None:
        return ""
    text = (
        f"All modalities share a code of {space.size} numbers; here it is the mean that the encoders say, not a draw."
    )
    body = (chart(contents, space), accuracies(contents), ways(contents, space), traversals(contents, space))
    return section("The latent space", "".join(body), text)


def chart(contents: Contents, space: LatentSpace) -> str:
    """The map, one panel for each modality that is given alone and one for all of them."""
    everything = space.panels[-1]
    frame = np.quantile(np.concatenate([panel.points for panel in space.panels]), (0.002, 0.998), axis=0)
    names = coloured(space)
    figures = []
    for panel in space.panels:
        groups = {name: panel.points[panel.classes == c] for c, name in names.items()}
        others = panel.points[~np.isin(panel.classes, list(names))]
        given = "everything" if panel is everything else panel.given[0]
        caption = f"given {html.escape(given)}<span>{percent(panel.share.sum())} of the variance</span>"
        svg = scatter(groups, others, frame)
        figures.append(f'<figure class="card"><figcaption>{caption}</figcaption>{svg}</figure>')
    keys = "".join(f'<span class="key c{i}">{html.escape(name)}</span>' for i, name in enumerate(names.values()))
    if names and not np.isin(everything.classes, list(names)).all():
        keys += '<span class="key rest">others</span>'
    first, second = map(percent, everything.share)
    text = (
        f"The codes of {len(everything.points):,} test examples along their two principal axes, which hold {first} and "
        f"{second} of the variance when everything is given. All panels have these axes, whatever is given in them."
    )
    keys = f'<p class="keys">{html.escape(space.label)} {keys}</p>' if names else ""
    return part("A map of it", f'{keys}<div class="maps">{"".join(figures)}</div>', text)


def coloured(space: LatentSpace) -> dict[int, str]:
    """The classes that get a colour, and their names: the most frequent ones, as many as there are colours."""
    classes, count = np.unique(space.panels[-1].classes, return_counts=True)
    count[classes < 0] = 0
    frequent = classes[np.argsort(-count, kind="stable")[:COLOURS]]
    return {int(c): space.names[int(c)] for c in np.sort(frequent) if c >= 0}


def accuracies(contents: Contents) -> str:
    """What the evaluation has measured of the codes, if it has."""
    probe, knn, cluster = (
        {name.removeprefix(start): value for name, value in contents.evaluation.items() if name.startswith(start)}
        for start in ("latents/probe/", "latents/knn/", "latents/cluster/")
    )
    if not probe:
        return ""
    rows = [
        row(html.escape(given.replace("+", " + ")), [heat(value), heat(knn.get(given)), heat(cluster.get(given))])
        for given, value in probe.items()
    ]
    text = (
        "How often the class of a test example is told from its code: by a linear probe, by the nearest codes of "
        "the training split, and by the cluster (k-means) of these that it falls into."
    )
    return part(
        "What it says of the class",
        card(table(["given", "linear probe", "nearest neighbours", "clusters"], rows, "heat")),
        text,
    )


def ways(contents: Contents, space: LatentSpace) -> str:
    """Interpolations between test examples, which stand at both ends."""
    cards = []
    for p in range(len(next(iter(space.ways.values()), ()))):
        rows = []
        for name, made in space.ways.items():
            first, last = (true(contents, name, i, "given") for i in (2 * p, 2 * p + 1))
            rows.append(row(html.escape(name), [first, *(shown(contents, name, x) for x in made[p]), last]))
        cards.append(card(table(["", "one", *map(short, WAY), "another"], rows, "grid")))
    text = (
        "The framed ones are real. Between them the code goes in a straight line from that of one to that of another: "
        "0 and 1 are what the model gives back of them."
    )
    return part("From one example to another", "".join(cards), text) if cards else ""


def traversals(contents: Contents, space: LatentSpace) -> str:
    """Test examples with one number of their code changed, in pictures; in clips only if there are no pictures."""
    kinds = {name: suffix(contents.modalities[name]) for name in space.moved}
    pictures = [name for name, kind in kinds.items() if kind in PICTURES]
    still = [name for name in pictures if kinds[name] != "gif"]
    cards = []
    for name in still or pictures:
        for i in range(len(space.moved[name])):
            rows = [
                row(
                    f"{d}<span>{short(float(f'{spread:.2g}'))}</span>",
                    [moved(contents, space, name, (i, k, t)) for t in range(len(MOVES))],
                )
                for k, (d, spread) in enumerate(zip(space.dimensions, space.spread, strict=True))
            ]
            cards.append(card(table([name, *map(short, MOVES)], rows, "moves")))
    text = (
        "The numbers of the code that vary most, the widest first. In each row one of them goes from 3 standard "
        "deviations (beside it) below its mean to 3 above, while all others stay as they are for a test example."
    )
    if space.label in space.moved:
        text += f" Below each picture is the {html.escape(space.label)} that is decoded from the same code."
    return part("Along its dimensions", f'<div class="pairs">{"".join(cards)}</div>', text) if cards else ""


def moved(contents: Contents, space: LatentSpace, name: str, at: tuple[int, int, int]) -> str:
    """A table cell of a picture, and below it the class that is decoded with it, if the model decodes classes."""
    shown = [part for part in (name, space.label) if part in space.moved]
    return f"<td>{''.join(cell(part, contents.modalities[part], space.moved[part][at]) for part in shown)}</td>"
