"""What commands print: JSON for programs, tables for people."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.result import Attempt

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON; without `indent` on one line."""
    typer.echo(json.dumps(value, indent=indent))


def print_table(table: Table) -> None:
    """Print a table, none of it cut off."""
    for column in table.columns:
        column.overflow = "fold"
    Console().print(table)


def cell(text: str | None) -> Text:
    """Text from outside: no markup in it, and nothing that a terminal obeys."""
    return Text("".join(c if c.isprintable() else " " for c in text or ""))


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
