"""Panels as an SVG: stats with their trend, lines and stacks with their legend."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from bench.dashboard.model import Panel, Series

_COLUMN, _ROW, _GAP, _TOP = 50, 30, 8, 44
_LEFT, _HEAD, _FOOT, _LINE = 58, 32, 24, 15
_WIDTH = 24 * _COLUMN
# Points farther apart than this many seconds are not joined: a gap is a gap.
_GAP_SECONDS = 12.0
_TICKS = 4

_COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#e02f44", "#b877d9", "#37872d", "#8ab8ff")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
_LETTER = 6.3


def svg(drawn: Sequence[tuple[Panel, list[Series]]], title: str) -> str:
    """All panels in their places.

    Args:
        drawn: each panel with its series, all of the same span.
        title: told above.
    """
    times = [at for _, series in drawn for one in series for at, _ in one.points]
    span = (min(times), max(times))
    height = _TOP + max(panel.y + panel.height for panel, _ in drawn) * _ROW + _GAP
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
                f'font-family="system-ui, sans-serif" font-size="11" role="img" '
                f'aria-label="{escape(title)}">'
            ),
            f'<rect width="{_WIDTH}" height="{height}" fill="#111217"/>',
            _text(_GAP, 27, title, "#d8d9da", 'font-size="15" font-weight="600"'),
            *(_drawn(panel, series, span) for panel, series in drawn),
            "</svg>",
            "",
        ]
    )


def shown(value: float, unit: str) -> str:
    """A value with its unit, short."""
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "s":
            return _seconds(value)
        case "bytes" | "Bps":
            scale = _scale(value, unit)
            name = _BYTES[round(math.log(scale, 1024))]
            return f"{value / scale:.3g} {name}{'/s' if unit == 'Bps' else ''}"
        case _:
            return f"{value:.3g}"


def _scale(value: float, unit: str) -> float:
    """What stands for one where such a value is told."""
    if unit not in ("bytes", "Bps") or value < 1:
        return 1.0
    return float(1024 ** min(len(_BYTES) - 1, int(math.log(value, 1024))))


def _seconds(value: float) -> str:
    if value >= 120:
        return f"{value / 60:.3g} min"
    return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1000 * value:.3g} ms"


def ticks(least: float, most: float) -> list[float]:
    """Round numbers from the least to the most, or a little beyond; a handful."""
    step = 10 ** math.floor(math.log10((most - least) / _TICKS))
    step *= next(one for one in (1, 2, 5, 10) if (most - least) / (one * step) <= _TICKS)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return [one * step for one in range(first, last + 1)]


def stacked(series: Sequence[Series]) -> list[Series]:
    """Each on top of those before it, where these have a value at the same time."""
    below: dict[float, float] = {}
    found = []
    for one in series:
        points = tuple((at, below.get(at, 0.0) + value) for at, value in one.points)
        below.update(points)
        found.append(Series(one.name, points))
    return found


def _drawn(panel: Panel, series: list[Series], span: tuple[float, float]) -> str:
    x, y = panel.x * _COLUMN + _GAP / 2, _TOP + panel.y * _ROW
    width, height = panel.width * _COLUMN - _GAP, panel.height * _ROW - _GAP
    draw = _stat if panel.kind == "stat" else _graph
    return "\n".join(
        [
            f'<g transform="translate({x:g} {y:g})">',
            f'<rect width="{width}" height="{height}" rx="3" fill="#181b1f" stroke="#2c3235"/>',
            _text(10, 19, panel.title, "#ccccdc", 'font-weight="500"'),
            *draw(panel, series, span, (width, height)),
            "</g>",
        ]
    )


def _stat(
    panel: Panel, series: list[Series], span: tuple[float, float], size: tuple[float, float]
) -> Iterable[str]:
    width, height = size
    points = series[0].points if series else ()
    if not points:
        yield _text(width / 2, height / 2, "no data", "#8e8e9a", 'text-anchor="middle"')
        return
    least, most = min(0.0, *(v for _, v in points)), max(v for _, v in points) or 1.0
    frame = _Frame(span, (least, most), (0, width, height - 36, height - 4))
    yield frame.area(points, _COLOURS[0], 0.15)
    yield frame.line(points, _COLOURS[0])
    value = shown(points[-1][1], panel.unit)
    look = 'text-anchor="middle" font-size="26" font-weight="600"'
    yield _text(width / 2, height / 2 + 12, value, _COLOURS[0], look)


def _graph(
    panel: Panel, series: list[Series], span: tuple[float, float], size: tuple[float, float]
) -> Iterable[str]:
    width, height = size
    rows = _legend_rows(series, width - 2 * _GAP)
    lines = stacked(series) if panel.stacked else series
    values = [value for one in lines for _, value in one.points]
    least = panel.least if panel.least is not None else min(0.0, *values, 0.0)
    most = panel.most if panel.most is not None else max((*values, 0.0))
    scale = _scale(most, panel.unit)
    marks = [scale * one for one in ticks(least / scale, max(most / scale, least / scale + 0.1))]
    bottom = height - _FOOT - len(rows) * _LINE
    frame = _Frame(span, (marks[0], marks[-1]), (_LEFT, width - 12, _HEAD, bottom))
    for mark in marks:
        at = frame.y(mark)
        yield f'<path stroke="#2c3235" d="M{_LEFT} {at:.1f}H{width - 12:.1f}"/>'
        label = shown(mark, panel.unit)
        yield _text(_LEFT - 6, at + 4, label, "#8e8e9a", 'text-anchor="end"')
    for mark in ticks(0.0, (span[1] - span[0]) / 60):
        if mark * 60 <= span[1] - span[0]:
            at = frame.x(span[0] + mark * 60)
            anchor = "end" if at > width - 24 else "middle"
            look = f'text-anchor="{anchor}"'
            yield _text(at, bottom + 15, f"{mark:g} min", "#8e8e9a", look)
    if not values:
        yield _text(width / 2, height / 2, "no data", "#8e8e9a", 'text-anchor="middle"')
    # Those on top first, so that all are seen.
    for number, one in reversed(list(enumerate(lines))):
        colour = _COLOURS[number % len(_COLOURS)]
        if panel.stacked:
            yield frame.area(one.points, colour, 0.5)
        yield frame.line(one.points, colour)
    yield from _legend(rows, bottom + _FOOT)


def _legend_rows(series: list[Series], width: float) -> list[list[tuple[str, str]]]:
    rows: list[list[tuple[str, str]]] = [[]]
    left = width
    for number, one in enumerate(series):
        needs = _letters(one.name)
        if needs > left and rows[-1]:
            rows.append([])
            left = width
        rows[-1].append((one.name, _COLOURS[number % len(_COLOURS)]))
        left -= needs
    return rows


def _letters(name: str) -> float:
    return len(name) * _LETTER + 30


def _legend(rows: list[list[tuple[str, str]]], top: float) -> Iterable[str]:
    for number, row in enumerate(rows):
        x, y = float(_GAP), top + number * _LINE
        for name, colour in row:
            yield f'<rect x="{x:.1f}" y="{y + 3:.1f}" width="12" height="3" fill="{colour}"/>'
            yield _text(x + 17, y + 8, name, "#ccccdc")
            x += _letters(name)


class _Frame:
    """Where times and values are on the paper."""

    def __init__(
        self,
        span: tuple[float, float],
        values: tuple[float, float],
        box: tuple[float, float, float, float],
    ) -> None:
        self._span, self._values, self._box = span, values, box

    def x(self, at: float) -> float:
        (first, last), (left, right, _, _) = self._span, self._box
        return left + (right - left) * (at - first) / ((last - first) or 1.0)

    def y(self, value: float) -> float:
        (least, most), (_, _, top, bottom) = self._values, self._box
        return bottom - (bottom - top) * (min(max(value, least), most) - least) / (most - least)

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> str:
        path = "".join(f"M{self._path(part)}" for part in _parts(points))
        return f'<path fill="none" stroke="{colour}" stroke-width="1.3" d="{path}"/>'

    def area(self, points: Sequence[tuple[float, float]], colour: str, opacity: float) -> str:
        bottom = self._box[3]
        path = "".join(
            f"M{self.x(part[0][0]):.1f} {bottom:.1f}L{self._path(part)}"
            f"L{self.x(part[-1][0]):.1f} {bottom:.1f}Z"
            for part in _parts(points)
        )
        return f'<path fill="{colour}" fill-opacity="{opacity}" d="{path}"/>'

    def _path(self, points: Sequence[tuple[float, float]]) -> str:
        return "L".join(f"{self.x(at):.1f} {self.y(value):.1f}" for at, value in points)


def _parts(points: Sequence[tuple[float, float]]) -> list[Sequence[tuple[float, float]]]:
    cuts = [
        number
        for number, (before, after) in enumerate(pairwise(points), 1)
        if after[0] - before[0] > _GAP_SECONDS
    ]
    return [
        points[start:end] for start, end in pairwise((0, *cuts, len(points))) if points[start:end]
    ]


def _text(x: float, y: float, text: str, colour: str, look: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" {look}>{escape(text)}</text>'
