"""`comfyfleet top`: the fleet before one's eyes."""

import sys
import time
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.errors import CommandError
from cli.fitting import Fitted
from cli.jobs import table_of
from cli.output import AsJson, cell, print_json, print_table
from cli.queue import oldest_words
from cli.snapshot import Snapshot, take
from cli.times import clock
from cli.workers import workers_table
from tasks.errors import JobError

_SECONDS = 2.0


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the fleet: workers, queue, rates and failures.

    Anew every two seconds, until Ctrl-C. Without a terminal, with --once or --json it is printed
    once.
    """
    if as_json:
        print_json(take().as_json())
    elif once or not sys.stdout.isatty():
        for part in parts(take()):
            if isinstance(part, Table):
                print_table(part)
            else:
                typer.echo(part)
    else:
        _watch()


def parts(now: Snapshot) -> list[Table | Text]:
    """The snapshot as people read it."""
    shown: list[Table | Text] = [_summary(now)]
    if now.workers:
        shown.append(workers_table(now.workers, now.at))
    else:
        shown.append(Text("no worker has told of itself lately"))
    shown.append(_rates(now))
    if now.failures:
        shown += [Text("latest failures"), table_of(now.failures, now.at)]
    return shown


def _watch() -> None:
    """Show it again and again; Ctrl-C is how it is meant to end."""
    shown: list[Table | Text] = [Text("asking the fleet")]
    try:
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                try:
                    shown = parts(take())
                except (CommandError, JobError) as error:
                    # It may come back; what was known stays on the screen.
                    shown = [cell(f"{clock(time.time())}: {error}"), *shown[-4:]]
                live.update(Group(*map(_fitted, shown)), refresh=True)
                time.sleep(_SECONDS)
    except KeyboardInterrupt:
        return


def _fitted(part: Table | Text) -> Fitted | Text:
    return Fitted(part) if isinstance(part, Table) else part


def _summary(now: Snapshot) -> Text:
    states = Counter(one.state for one in now.workers)
    # A spare has no server to which it could give jobs.
    here = [one.status for one in now.workers if one.state not in ("gone", "spare")]
    others = "".join(f", {states[one]} {one}" for one in ("spare", "gone") if states[one])
    jobs, slots = sum(len(one.jobs) for one in here), sum(one.slots for one in here)
    backlog = now.backlog
    levels = ", ".join(
        f"{number:,} at {level}" for level, number in backlog.waiting.items() if number
    )
    oldest = oldest_words(backlog)
    words = [
        clock(now.at),
        f"{len(here)} workers{others}",
        f"{jobs} jobs in {slots} slots",
        f"{backlog.depth:,} waiting"
        + (f" ({levels})" if levels else "")
        + (f", the oldest for {oldest}" if oldest else ""),
    ]
    return Text("  ·  ".join(words))


def _rates(now: Snapshot) -> Table:
    table = Table("ended within", *(end for end in next(iter(now.rates.values()))))
    for name, rates in now.rates.items():
        table.add_row(name, *(f"{number:,}" for number in rates.values()))
    return table
