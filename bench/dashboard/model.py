"""The dashboard's file as values, and what Prometheus answers to it."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What Grafana puts in place of its own words.
_RATE_SECONDS = 20
_WORD = re.compile(r"\$__rate_interval")


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: as Prometheus takes it.
        legend: of its series, with `{{label}}` where a label's value goes.
    """

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel; place and size are in cells of Grafana's grid of 24 columns."""

    title: str
    kind: str
    x: int
    y: int
    width: int
    height: int
    unit: str
    stacked: bool
    least: float | None
    most: float | None
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Series:
    """A line: Unix times (seconds) and values, in order."""

    name: str
    points: tuple[tuple[float, float], ...]


def panels(dashboard: str) -> list[Panel]:
    """The panels of a dashboard as Grafana keeps it, in JSON."""
    return [_panel(one) for one in json.loads(dashboard)["panels"]]


def _panel(told: Mapping[str, Any]) -> Panel:
    place, defaults = told["gridPos"], told["fieldConfig"]["defaults"]
    return Panel(
        title=told["title"],
        kind=told["type"],
        x=place["x"],
        y=place["y"],
        width=place["w"],
        height=place["h"],
        unit=defaults["unit"],
        stacked="stacking" in defaults.get("custom", {}),
        least=defaults.get("min"),
        most=defaults.get("max"),
        queries=tuple(
            Query(_WORD.sub(f"{_RATE_SECONDS}s", one["expr"]), one["legendFormat"])
            for one in told["targets"]
        ),
    )


def series_of(query: Query, answer: Mapping[str, Any]) -> list[Series]:
    """The lines that Prometheus answers to a query over a range."""
    return [
        Series(_named(query.legend, one["metric"]), _points(one["values"]))
        for one in answer["data"]["result"]
    ]


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)


def _points(values: list[tuple[float, str]]) -> tuple[tuple[float, float], ...]:
    read = ((at, float(value)) for at, value in values)
    return tuple((at, value) for at, value in read if math.isfinite(value))
