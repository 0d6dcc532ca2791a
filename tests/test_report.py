"""The report: loads nothing, escapes everything, shows what was there."""

import dataclasses
import io
import json
import re
import wave
from html.parser import HTMLParser
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from mmgen_jax.modalities import Audio, Image, Label, Text, Video
from mmgen_jax.report import contents as report_contents
from mmgen_jax.report.cells import cell
from mmgen_jax.report.contents import Contents, collect, examples
from mmgen_jax.report.page import duration, page, write
from mmgen_jax.report.plots import curve, short, ticks, waveform
from mmgen_jax.types import Rendering

ATTACK = "<script>alert(1)</script>"
MODALITIES = {
    "image": Image(4, 4, 1),
    "text": Text(length=32),
    "sound": Audio(800, rate=8000),
    "clip": Video(2, 4, 4, 3),
    "label": Label(2, names=("cat & dog", "<b>")),
}


class Fake:
    """Answers everything with the same example; its texts are an attack."""

    modalities = MODALITIES

    def one(self):
        return {
            name: m.encode(ATTACK) if name == "text" else np.zeros(m.shape, m.dtype) for name, m in MODALITIES.items()
        }

    def sample(self, variables, key, n, *, given):
        made = {name: jnp.broadcast_to(jnp.asarray(x)[None], (n, *x.shape)) for name, x in self.one().items()}
        return given.completed(made)

    def reconstruct(self, variables, batch, key):
        return batch.values


class Source:
    """Ten examples; only numbers 3 and 7 have a sound."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        example = {"image": np.full((4, 4), i * 20, np.uint8), "text": f"number {i} <i>", "label": i % 2}
        example["clip"] = np.zeros((2, 4, 4, 3), np.uint8)
        return example | ({"sound": np.zeros(800, np.int16)} if i in (3, 7) else {})


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> Contents:
    run = tmp_path_factory.mktemp("runs") / "a run"
    (run / "judges").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"steps": 7, "note": ATTACK}))
    rows = [{"step": s, "seconds": s / 2, "loss": 10.0 / s, "kl": None if s == 2 else 1.0} for s in range(1, 301)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "evaluation.json").write_text(
        json.dumps({"step": 300, "values": {"coherence/image->text": 0.875, "coherence/joint": 0.5, "odd/x": None}})
    )
    (run / "judges" / "image-0.json").write_text(
        json.dumps({"modality": "image", "accuracy": 0.97, "sha256": "0123456789abcdef"})
    )
    start = {"started": "today", "command": f"mmgen {ATTACK}", "versions": {"jax": "0"}, "devices": [1, "cpu"]}
    (run / "starts.jsonl").write_text(json.dumps(start) + "\n")
    experiment = SimpleNamespace(model=Fake(), data=SimpleNamespace(source=lambda split: Source()), seed=0)
    state = SimpleNamespace(variables={}, params={"w": np.zeros((3, 4))}, step=np.int32(300))
    return collect(run, experiment, state)


class Tags(HTMLParser):
    """All tags with their attributes; checks that they are nested properly."""

    VOID = {"meta", "img", "br", "path", "polyline"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_it_loads_nothing_from_anywhere(contents):
    text = page(contents)
    tags = Tags(text).tags
    for tag, attributes in tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "poster"):
                assert value.startswith("data:")
    style = re.search("<style>(.*?)</style>", text, re.S).group(1)
    assert "url(" not in style and "@import" not in style
    assert "http:" not in text and "https:" not in text


def test_whatever_a_run_says_is_escaped(contents):
    text = page(contents)
    assert ATTACK not in text and "<i>" not in text and "<b></" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "cat &amp; dog" in text


def test_it_shows_what_was_there(contents):
    text = page(contents)
    for part in ("a run", "step 300", "87.5 %", "50.0 %", "97.0 %", "0123456789ab", "not a number", "2 min"):
        assert part in text, part
    tags = [tag for tag, _ in Tags(text).tags]
    assert {"img", "audio", "svg", "table", "details", "pre"} <= set(tags)
    assert "image/gif" in text and "image/png" in text and "audio/wav" in text


def test_each_row_frames_what_was_given(contents):
    # Two of ten examples are complete; the third has no sound to give.
    assert page(contents).count('class="given"') == 5 + 5 + 4
    assert contents.real.present["sound"].sum() == 2 and contents.real.present["sound"][:2].all()
    assert set(contents.made["image"]) == set(MODALITIES)
    np.testing.assert_array_equal(contents.made["image"]["image"], contents.real.values["image"])


def test_the_same_examples_every_time():
    one, two = (examples(Source(), MODALITIES) for _ in range(2))
    np.testing.assert_array_equal(one.values["image"], two.values["image"])
    assert len(one) == report_contents.REAL


def test_write_needs_a_run_directory(tmp_path):
    with pytest.raises(ValueError, match="not a run directory"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_without_numbers_has_a_page(contents):
    bare = dataclasses.replace(contents, rows=[], evaluation={}, judges=[], starts=[], reconstructed=None, made={})
    text = page(bare)
    Tags(text)
    assert "Training" not in text and "Coherence" not in text and "Out of nothing" in text


def test_cells_by_type():
    class Unknown:
        shape = (1,)

        def render(self, x):
            return Rendering("bin", b"\x00\xff")

    assert cell("x", Unknown(), np.zeros(1)).startswith('<a download="x.bin" href="data:application/octet-stream;')
    assert 'class="class">cat &amp; dog<' in cell("label", MODALITIES["label"], np.int32(0))


def test_a_curve_goes_from_corner_to_corner():
    points = re.search('points="(.*?)"', curve([0, 10, 20], [5.0, 3.0, 1.0])).group(1)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in points.split())
    assert x0 < x1 < x2 and y0 < y1 < y2  # downwards on the screen
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.06) and y1 == pytest.approx((y0 + y2) / 2, abs=0.06)


def test_a_curve_is_not_flattened_by_its_first_steps():
    values = [1e9] + [2.0 - i / 100 for i in range(100)]
    points = re.search('points="(.*?)"', curve(range(101), values)).group(1).split()
    heights = [float(p.split(",")[1]) for p in points]
    assert max(heights[1:]) - min(heights[1:]) > 50
    assert min(heights) >= 0 and max(heights) <= 150
    assert "nan" not in curve([1, 2], [3.0, 3.0])


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == pytest.approx([0, 0.5, 1])
    assert ticks(-130, 270) == pytest.approx([-100, 0, 100, 200])
    for low, high in ((0.1, 0.13), (-5e6, 3e7), (1e-9, 2e-9)):
        marks = ticks(low, high)
        assert 2 <= len(marks) <= 6 and low <= marks[0] and marks[-1] <= high


def test_numbers_for_people():
    assert [short(v) for v in (0.0, 2000, 0.0314159, 12.5, 1.5e7)] == ["0", "2,000", "0.0314", "12.5", "1.5e+07"]
    assert [duration(s) for s in (12.34, 600, 9000)] == ["12.3 s", "10 min", "2.5 h"]


def test_a_waveform_follows_the_sound():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(np.repeat(np.array([0, 1000, 0, 500], "<i2"), 100).tobytes())
    heights = [float(h) for h in re.findall(r"h2v([\d.]+)h-2z", waveform(file.getvalue(), bars=4))]
    assert heights == [1.0, 30.0, 1.0, 15.5]
