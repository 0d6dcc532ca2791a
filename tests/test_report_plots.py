"""The drawings of the report: where points, curves, marks and names lie."""

import io
import re
import wave
from xml.etree import ElementTree

import numpy as np
import pytest

from mmgen_jax.report.plots import curve, scatter, ticks, waveform


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


def test_a_waveform_follows_the_sound():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(np.repeat(np.array([0, 1000, 0, 500], "<i2"), 100).tobytes())
    heights = [float(h) for h in re.findall(r"h2v([\d.]+)h-2z", waveform(file.getvalue(), bars=4))]
    assert heights == [1.0, 30.0, 1.0, 15.5]


def test_points_lie_where_they_are_and_names_above_their_middle():
    frame = np.array([[-2.0, -1], [2, 1]])
    svg = scatter({"a": np.array([[0.0, 0], [2, 0]]), "<b>": np.array([[0.0, 1]])}, np.array([[99.0, 0]]), frame, 100)
    ElementTree.fromstring(svg)  # well formed
    places = [np.array(re.findall(r"M(\d+) (\d+)h0", d), int) for d in re.findall('dots.*? d="(.*?)"', svg)]
    assert 'viewBox="0 0 100 50"' in svg
    others, first, second = places
    np.testing.assert_array_equal(others, [[97, 25]])  # beyond the frame: at its edge
    np.testing.assert_array_equal(first, [[50, 25], [95, 25]])
    np.testing.assert_array_equal(second, [[50, 2]] if second[0, 1] == 2 else [[50, 3]])
    assert '<text class="name" x="72.7" y="19.0">a</text>' in svg and "&lt;b&gt;</text>" in svg


def test_names_do_not_lie_upon_one_another():
    points = np.zeros((3, 2))
    svg = scatter(
        {"one": points, "two": points + 0.01, "none": points[:0], "far": points + 1},
        points[:0],
        points[:2] + [[0], [1]],
    )
    assert re.findall(">(\\w+)</text>", svg) == ["one", "far"] and 'class="dots c2"' not in svg
