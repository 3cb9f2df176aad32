"""What commands print: JSON for programs, tables and bars for people."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from cli.fitting import Fitted
from tasks.result import Attempt

_UUID_LENGTH = 36

# Characters in a line where no terminal bounds it.
_WIDE = 4000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON; without `indent` on one line."""
    typer.echo(json.dumps(value, indent=indent))


def print_table(table: Table) -> None:
    """Print a table, none of it cut off; in a terminal that is too narrow for it as entries."""
    out = Console()
    if not out.is_terminal:
        # Other programs read it line by line, unless COLUMNS says how long these may be.
        out = Console(width=get_terminal_size((_WIDE, 0)).columns)
    out.print(Fitted(table))


def short(*titles: str) -> list[Column]:
    """Columns of short words, which are not broken."""
    return [Column(title, no_wrap=True) for title in titles]


def id_column(title: str, ids: Iterable[str]) -> Column:
    """A column of ids that people copy: each in one line, unless it is longer than a UUID."""
    return Column(title, no_wrap=all(len(one) <= _UUID_LENGTH for one in ids))


def cell(text: str | None) -> Text:
    """Text from outside: no markup in it, and nothing that a terminal obeys."""
    return Text("".join(c if c.isprintable() else " " for c in text or ""))


def size(size_bytes: int) -> str:
    """So many bytes, in kilobytes."""
    return f"{size_bytes / 1000:.1f} kB"


@contextmanager
def bar() -> Iterator[Callable[[float, str], None]]:
    """A bar on stderr, where that is a terminal; it is told how far it is, 0 to 1, and at what."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task("waiting", total=1.0)
        yield lambda share, what: bars.update(task, completed=share, description=what)


def attempts_table(attempts: Iterable[Attempt]) -> Table:
    """What became of each attempt at a job."""
    table = Table("attempt", "instance", "prompt", "seconds", "error")
    for one in attempts:
        table.add_row(
            str(one.number),
            cell(one.instance),
            cell(one.prompt_id),
            f"{one.seconds:.1f}",
            cell(one.error),
        )
    return table
