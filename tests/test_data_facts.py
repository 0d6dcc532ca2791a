"""What is measured on pictures and clips, and said and read in sentences."""

import itertools
import re

import numpy as np
import pytest

from mmgen_jax.data.builders import facts
from mmgen_jax.modalities import Wordlist

MIDDLE = {"thickness": "medium", "width": "normal", "slant": "upright"}


def stroke(width: int, slope: float = 0.0, side: int = 28) -> np.ndarray:
    """A straight stroke 20 rows high, `slope` columns to the right per row up, with smooth edges."""
    row, column = np.indices((side, side))
    off = np.abs(column - side / 2 - slope * (side / 2 - row))
    inside = (row >= 4) & (row < 24)
    return np.clip(width / 2 + 0.5 - off, 0, 1) * inside


def clip(down: float, right: float, frames: int = 8) -> np.ndarray:
    """A square of 6 pixels moving from the middle."""
    video = np.zeros((frames, 32, 32))
    for t in range(frames):
        row, column = (int(round(13 + step * min(t, 3))) for step in (down, right))
        video[t, row : row + 6, column : column + 6] = 1
    return video


@pytest.mark.parametrize(("width", "name"), [(1, "thin"), (2, "thin"), (5, "thick"), (8, "thick")])
def test_thickness_is_the_width_of_a_stroke(width: int, name: str) -> None:
    assert facts.image_facts(stroke(width))["thickness"] == name


@pytest.mark.parametrize(("slope", "name"), [(-0.4, "left"), (0.12, "upright"), (0.4, "right")])
def test_slant(slope: float, name: str) -> None:
    assert facts.image_facts(stroke(3, slope))["slant"] == name


@pytest.mark.parametrize("slope", [-0.4, 0.0, 0.4])
def test_width_does_not_depend_on_slant(slope: float) -> None:
    assert facts.image_facts(stroke(4, slope))["width"] == "narrow"
    assert facts.image_facts(stroke(12, slope))["width"] == "normal"
    assert facts.image_facts(stroke(16, slope))["width"] == "wide"


def test_every_form_of_a_picture_measures_the_same() -> None:
    image = np.round(stroke(3, 0.3) * 255).astype(np.uint8)
    expected = facts.image_facts(image)
    assert facts.image_facts(image[..., None]) == expected
    assert facts.image_facts(image / 255) == expected
    assert facts.image_facts(np.repeat(image[..., None], 3, -1).astype(np.float32) / 255) == expected
    assert facts.image_facts(image / 255 * 0.5) == expected  # contrast
    assert facts.image_facts(np.roll(image, 3, 1)) == expected


def test_nothing_is_said_of_nothing() -> None:
    assert facts.image_facts(np.zeros((28, 28, 1))) == {}
    assert facts.image_facts(np.full((28, 28), np.nan)) == {}
    assert facts.video_facts(np.zeros((8, 32, 32, 1), np.uint8)) == {}
    assert facts.video_facts(clip(0, 0)) == {}  # seen, but still
    assert set(facts.image_facts(np.eye(1))) == set(MIDDLE)  # a single pixel does not divide by zero


@pytest.mark.parametrize("number", range(8))
def test_direction(number: int) -> None:
    down, right = np.round([np.sin(number * np.pi / 4), np.cos(number * np.pi / 4)])
    said = {"direction": facts.DIRECTIONS[number]}
    assert ("right" in said["direction"]) == (right > 0) and ("down" in said["direction"]) == (down > 0)
    assert facts.video_facts(clip(2 * down, 2 * right)) == said
    assert facts.video_facts((clip(2 * down, 2 * right)[..., None] * 255).astype(np.uint8)) == said


def test_direction_of_one_frame_is_not_known() -> None:
    assert facts.video_facts(clip(2, 0)[:1]) == {}


def test_parse_inverts_phrase_for_every_combination_of_facts() -> None:
    rng = np.random.default_rng(0)
    names, words = list(facts.WORDS), Wordlist(facts.VOCABULARY)
    texts = set()
    for values in itertools.product(*facts.WORDS.values()):
        said = dict(zip(names, values, strict=True))
        text = facts.phrase(said, rng)
        assert facts.parse(text) == said, text
        assert words.decode(words.encode(text)) == text
        texts.add(text)
    assert all(re.fullmatch(r"[a-z ,]+\.", text) for text in texts)
    assert not any(re.search(r"\ba [aeio]", text) for text in texts)  # never "a eight"


@pytest.mark.parametrize("phrasing", facts.PHRASINGS)
def test_the_longest_sentence_of_each_phrasing_has_63_characters_at_most(phrasing: str) -> None:
    longest = {
        fact: max((way for ways in table.values() for way in ways), key=len) for fact, table in facts.WORDS.items()
    }
    assert len(phrasing.format(**longest)) <= 63


def test_all_phrasings_and_all_words_are_used() -> None:
    rng = np.random.default_rng(0)
    said = {"digit": "seven", "thickness": "thin", "width": "wide", "slant": "left", "direction": "up left"}
    texts = {facts.phrase(said, rng) for _ in range(2_000)}
    assert len(texts) == len(facts.PHRASINGS) * 2**4


def test_words_of_different_facts_never_collide() -> None:
    ways = [way for table in facts.WORDS.values() for ways in table.values() for way in ways]
    assert len(set(ways)) == len(ways)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a thick seven", {"digit": "seven", "thickness": "thick"}),
        ("THICK SEVEN", {"digit": "seven", "thickness": "thick"}),
        ("a thick thin seven", {"digit": "seven"}),  # said in two ways
        ("a seven seven, bold and thick", {"digit": "seven", "thickness": "thick"}),  # twice the same
        ("sevenn thickly movingleft", {}),
        ("leaning up, moving sideways", {}),
        ("moving up left", {"direction": "up left"}),
        ("moving up, leaning left", {"direction": "up", "slant": "left"}),
        ("\x00\ufffd??? 7", {}),
    ],
)
def test_parse_of_what_nobody_phrased(text: str, expected: dict[str, str]) -> None:
    assert facts.parse(text) == expected
