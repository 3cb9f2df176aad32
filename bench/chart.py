"""The shares as bars: an SVG that can be read on light and on dark pages."""

from xml.sax.saxutils import escape

from bench.figures import compared, shares, spread
from bench.model import Kind, Report
from bench.table import length

_WIDTH, _LEFT, _RIGHT = 780, 220, 80
_BAR, _ROW, _HEAD, _TOP = 14, 22, 26, 44

# Middle tones: neither white nor black swallows them.
_COLOURS = {
    Kind.SEQUENTIAL: "#8c959f",
    Kind.PLAIN_2: "#bf8700",
    Kind.PLAIN_6: "#d4751c",
    Kind.OURS: "#2da44e",
}
_STYLE = (
    "text{fill:#1f2328} .quiet{fill:#59636e} .rest{fill:#818b981f} .limit{stroke:#cf222e}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f6fc} .quiet{fill:#9198a1} "
    ".rest{fill:#656c7633} .limit{stroke:#f85149}}"
)


def svg(report: Report) -> str:
    """How busy each contender keeps a GPU, by the length of jobs; the direct limit is 100 %."""
    scale = _WIDTH - _LEFT - _RIGHT
    cells = compared(report.runs)
    body: list[str] = []
    y = _TOP
    for cell in cells:
        body.append(_text(20, y + 16, length(cell.seconds, report), weight="600"))
        y += _HEAD
        for kind, colour in _COLOURS.items():
            values = shares(report.runs, cell, kind, "span")
            if not values:
                continue
            share = spread(values).median
            middle = y + _BAR - 2
            body += [
                _text(_LEFT - 10, middle, kind.label, anchor="end", quiet=kind is not Kind.OURS),
                _bar(y, scale, 'class="rest"'),
                _bar(y, scale * min(share, 1.0), f'fill="{colour}"'),
                _text(_WIDTH - _RIGHT + 8, middle, f"{share:.1%}"),
            ]
            y += _ROW
        y += _BAR
    right = _LEFT + scale
    line = f'<path class="limit" stroke-dasharray="3 3" d="M{right} {_TOP - 8}V{y - _BAR}"/>'
    title = f"GPU busy share, S3 {cells[0].s3_ms} ms away; dashed: what the server can do"
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" '
                f'font-family="system-ui, sans-serif" font-size="13" role="img" '
                f'aria-label="{escape(title)}">'
            ),
            f"<style>{_STYLE}</style>",
            _text(20, 24, title, weight="600"),
            *body,
            line,
            "</svg>",
            "",
        ]
    )


def _bar(y: int, width: float, look: str) -> str:
    return f'<rect {look} x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}"/>'


def _text(
    x: int, y: int, text: str, *, anchor: str = "start", weight: str = "400", quiet: bool = False
) -> str:
    kind = ' class="quiet"' if quiet else ""
    return (
        f'<text{kind} x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
