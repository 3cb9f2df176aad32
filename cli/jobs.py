"""`comfyfleet jobs`: the latest jobs, in whatever state."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.fleet import open_ledger
from cli.output import AsJson, cell, id_column, print_json, print_table, short
from cli.states import CELERY, Kind, complete_kind, kind_of, ledger_states, read_kind
from cli.times import duration, read_moment
from settings import load
from tasks.request import label
from workers.broker.waiting import Waiting, are_listed, latest_waiting
from workers.ledger import Ledger
from workers.ledger.jobs import JobEntry

# Of an error so much is enough to know it again; `show` has all of it.
_ERROR_CHARACTERS = 120


@dataclass(frozen=True)
class Row:
    """A job in the list. All times are Unix time."""

    job_id: str
    kind: Kind
    since: float | None
    enqueued_at: float | None = None
    begun_at: float | None = None
    instance: str | None = None
    attempts: int = 0
    error: str | None = None
    priority: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The job as programs read it, its state in Celery's word."""
        told = dict(vars(self))
        return {"job_id": told.pop("job_id"), "state": CELERY[told.pop("kind")], **told}


def jobs(
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="Only those that are waiting, running, retrying, succeeded, failed or cancelled; "
            "may be given again.",
            autocompletion=complete_kind,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only what has changed since: 15m, 2h, 1d or a date."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the latest jobs, newest first.

    Those that have ended are remembered for a week, of each state the latest 10,000. Of jobs that
    wait in the queue those that came last are listed.
    """
    moment = read_moment("--since", since) if since is not None else 0.0
    rows = find_rows(tuple(map(read_kind, state or Kind)), limit, moment)
    if as_json:
        print_json([row.as_json() for row in rows])
    elif rows:
        print_table(table_of(rows, time.time()))
    else:
        typer.echo("comfyfleet: no such job is known", err=True)


def find_rows(kinds: Sequence[Kind], limit: int, since: float) -> list[Row]:
    """The latest jobs of these kinds, newest first.

    Raises:
        CommandError: Redis is away.
    """
    with open_ledger() as ledger:
        entries = ledger.jobs.latest(ledger_states(kinds), limit=limit, since=since)
        settings = load()
        waiting: list[Row] = []
        if {Kind.WAITING, Kind.CANCELLED} & {*kinds} and are_listed(settings):
            waiting = _not_begun(ledger, latest_waiting(settings.ledger_url, limit))
    # One whose worker vanished a moment ago is none that runs.
    told = [row for row in (*map(_of_ledger, entries), *waiting) if row.kind in kinds]
    return newest(told, limit, since)


def newest(rows: Iterable[Row], limit: int, since: float) -> list[Row]:
    """So many at most, newest first; what does not say since when it waits is as new as can be."""

    def moment(row: Row) -> float:
        return float("inf") if row.since is None else row.since

    return sorted((row for row in rows if moment(row) >= since), key=moment, reverse=True)[:limit]


def table_of(rows: Sequence[Row], now: float) -> Table:
    """The jobs as people read them."""
    ids = id_column("job", [row.job_id for row in rows])
    table = Table(ids, *short("state", "since"), "server", *short("attempts"), "last error")
    for row in rows:
        table.add_row(
            cell(row.job_id),
            row.kind.value,
            "" if row.since is None else f"{duration(now - row.since)} ago",
            cell(row.instance),
            str(row.attempts or ""),
            cell(label(row.error or "", _ERROR_CHARACTERS)),
        )
    return table


def _of_ledger(entry: JobEntry) -> Row:
    kind = kind_of(entry.state)
    return Row(
        entry.job_id,
        kind,
        entry.since,
        entry.enqueued_at,
        entry.begun_at,
        entry.instance,
        entry.attempts,
        entry.error,
    )


def _not_begun(ledger: Ledger, found: Sequence[Waiting]) -> list[Row]:
    """Those that nobody has begun; one that was cancelled waits only to be thrown away."""
    ids = [one.job_id for one in found]
    begun, cancelled = ledger.jobs.known(ids), ledger.jobs.cancelled(ids)
    return [
        Row(
            *(one.job_id, Kind.CANCELLED if one.job_id in cancelled else Kind.WAITING),
            *(one.enqueued_at, one.enqueued_at),
            priority=one.priority,
        )
        for one in found
        if one.job_id not in begun
    ]
