"""The dashboard's file as it is asked, and as it is drawn."""

import json
from xml.etree import ElementTree as ET

import pytest

from bench.dashboard.draw import shown, stacked, svg, ticks
from bench.dashboard.model import Query, Series, panels, series_of

PANEL = {
    "title": "Jobs <by> outcome",
    "type": "timeseries",
    "gridPos": {"x": 12, "y": 4, "w": 12, "h": 7},
    "fieldConfig": {"defaults": {"unit": "short", "custom": {"stacking": {"mode": "normal"}}}},
    "targets": [
        {"expr": "sum(rate(jobs[$__rate_interval]))", "legendFormat": "{{outcome}} of {{server}}"}
    ],
}
STAT = {**PANEL, "type": "stat", "gridPos": {"x": 0, "y": 0, "w": 4, "h": 4}}


def test_queries_are_asked_as_grafana_asks_them() -> None:
    (panel,) = panels(json.dumps({"panels": [PANEL]}))
    assert (panel.title, panel.stacked, panel.width) == ("Jobs <by> outcome", True, 12)
    assert panel.queries[0].expression == "sum(rate(jobs[20s]))"


def test_series_have_names_and_no_holes_of_numbers() -> None:
    answer = {
        "data": {
            "result": [
                {"metric": {"outcome": "failed"}, "values": [[1, "2"], [3, "NaN"], [5, "4.5"]]}
            ]
        }
    }
    (found,) = series_of(Query("x", "{{outcome}} of {{server}}"), answer)
    assert found == Series("failed of ", ((1, 2.0), (5, 4.5)))


@pytest.mark.parametrize(
    ("least", "most", "marks"),
    [
        (0, 107, [0, 50, 100, 150]),
        (0, 1, [0, 0.5, 1]),
        (0, 4, [0, 1, 2, 3, 4]),
        (0, 0.03, [0, 0.01, 0.02, 0.03]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_hold_all(least: float, most: float, marks: list[float]) -> None:
    assert ticks(least, most) == pytest.approx(marks)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.977, "percentunit", "97.7 %"),
        (0.0123, "s", "12.3 ms"),
        (0, "s", "0 s"),
        (47.44, "s", "47.4 s"),
        (600, "s", "10 min"),
        (0, "bytes", "0 B"),
        (110 * 1024**2, "bytes", "110 MiB"),
        (2048, "Bps", "2 KiB/s"),
        (3, "short", "3"),
    ],
)
def test_values_are_told_with_their_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_stacks_add_up_where_there_is_something_below() -> None:
    below, above = Series("a", ((1, 2.0),)), Series("b", ((1, 3.0), (2, 3.0)))
    assert stacked([below, above])[1].points == ((1, 5.0), (2, 3.0))


def test_the_picture_is_well_formed_and_keeps_gaps() -> None:
    lines, stat = panels(json.dumps({"panels": [PANEL, STAT]}))
    gap = Series("failed", ((0, 1.0), (2, 2.0), (40, 1.0), (42, 2.0)))
    drawn = svg([(lines, [gap]), (stat, []), (stat, [gap])], "a <fleet>")
    root = ET.fromstring(drawn)
    told = [one.text for one in root.iter() if one.text]
    assert {"a <fleet>", "Jobs <by> outcome", "failed", "no data"} <= set(told)
    paths = [one.get("d", "") for one in root.iter("{http://www.w3.org/2000/svg}path")]
    assert max(path.count("M") for path in paths if "L" in path) == 2
