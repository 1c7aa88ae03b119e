"""The chart of latency distributions."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.curves import curves, tail


def test_the_tail_ends_with_the_slowest_and_begins_with_the_fastest() -> None:
    points = list(tail([number / 1000 for number in range(1, 1001)]))
    assert points[0] == (0.001, 1.0)
    assert points[-1] == (1.0, pytest.approx(0.001))
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))


def test_the_drawing_is_well_formed_and_has_a_curve_for_each_server_and_load() -> None:
    latencies = {"ideal single queue": [0.0001], "prefork": [0.001, 0.01, 2.5], "a & b": [0.003] * 2000}
    drawing = ElementTree.fromstring(curves({"one": latencies, "two": latencies}))
    svg = "{http://www.w3.org/2000/svg}"
    drawn = [path for path in drawing.iter(f"{svg}path") if path.get("fill") == "none"]
    assert len(drawn) == len(latencies) * (1 + 2)  # in the legend, and in each panel
    assert [text.text for text in drawing.findall(f"{svg}text")][1:] == list(latencies)
