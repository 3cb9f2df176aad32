"""`comfyfleet queue`: how many jobs wait, and for how long."""

from typing import Any

from rich.table import Table

from cli.fleet import open_broker
from cli.output import AsJson, cell, print_json, print_table
from cli.times import duration
from workers.broker.backlog import Backlog, read_backlog

# What producers call the levels of a Redis broker.
_WORDS = {"0": "0, urgent", "3": "3, normal", "9": "9, batch"}


def queue(as_json: AsJson = False) -> None:
    """Print how many jobs wait, and for how long.

    By priority, the most urgent first; those that wait in lanes for certain servers are included.
    """
    with open_broker() as settings:
        backlog = read_backlog(settings)
    if as_json:
        print_json(backlog_json(backlog))
    else:
        print_table(backlog_table(backlog))


def backlog_json(backlog: Backlog) -> dict[str, Any]:
    """The backlog as programs read it."""
    return {
        "depth": backlog.depth,
        "waiting": dict(backlog.waiting),
        "lanes": dict(backlog.lanes),
        "oldest_seconds": backlog.oldest_seconds,
        "taken": backlog.taken,
    }


def backlog_table(backlog: Backlog) -> Table:
    """The backlog as people read it."""
    table = Table("priority", "waiting")
    for level, number in backlog.waiting.items():
        table.add_row(_WORDS.get(level, level), f"{number:,}")
    table.add_row("all", f"{backlog.depth:,}")
    for lane, number in backlog.lanes.items():
        table.add_row(cell(f"of these in lane {lane}"), f"{number:,}")
    table.add_section()
    table.add_row("taken by workers", f"{backlog.taken:,}")
    table.add_row("oldest waits for", oldest_words(backlog))
    return table


def oldest_words(backlog: Backlog) -> str:
    """For how long the oldest waits."""
    if backlog.oldest_seconds is not None:
        return duration(backlog.oldest_seconds)
    return "not known" if backlog.depth else ""
