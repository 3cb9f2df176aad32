"""Tables that fit into the terminal they are shown in."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

# A column of prose with fewer characters in a line can hardly be read.
_LEAST = 20
# Beside what stands in a cell: two spaces and a line.
_AROUND = 3


class Fitted:
    """A table with all of what stands in it: as entries where its columns would be too narrow."""

    def __init__(self, table: Table) -> None:
        """Take a table, whose cells are broken where they must be."""
        for column in table.columns:
            column.overflow = "fold"
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = self._table.columns
        needed = sum(_AROUND + _least(one, console, options) for one in columns) + 1
        if needed <= options.max_width or len(columns) == 1:
            yield self._table
        else:
            yield from self._entries()

    def _entries(self) -> Iterator[RenderableType]:
        """Each row under what stands in its first column, what is empty left out."""
        titles = [_text(column.header) for column in self._table.columns]
        for cells in zip(*(column.cells for column in self._table.columns), strict=True):
            named = zip(titles, map(_text, cells), strict=True)
            head, *told = [Text(" ").join((title, one)) for title, one in named if one.plain]
            head.stylize("bold")
            yield _folded(head)
            if told:
                yield Padding(_folded(Text("  ·  ").join(told)), (0, 0, 0, 2))


def _folded(text: Text) -> Text:
    text.overflow = "fold"
    return text


def _least(column: Column, console: Console, options: ConsoleOptions) -> int:
    """The characters that a column needs at least."""
    shown = (column.header, *column.cells)
    wide = options.update(width=max(options.max_width, 10_000))
    longest = max(Measurement.get(console, wide, one).maximum for one in shown)
    return longest if column.no_wrap else min(longest, _LEAST)


def _text(cell: RenderableType) -> Text:
    """What stands in a cell, in one line."""
    found = cell if isinstance(cell, Text) else Text.from_markup(str(cell))
    return Text(", ").join(found.split("\n"))
