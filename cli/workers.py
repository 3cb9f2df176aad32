"""`comfyfleet workers`: who is there, and what each of them does."""

import time
from collections.abc import Sequence
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cli.fleet import open_ledger
from cli.output import AsJson, cell, print_json, print_table, short
from cli.times import duration
from tasks.request import label
from workers.ledger.fleet import Heard

_ERROR_CHARACTERS = 120


def workers(as_json: AsJson = False) -> None:
    """List the workers of the fleet, and what each of them does.

    Each tells of itself every three seconds; one that has not for twelve is shown as gone for ten
    minutes.
    """
    with open_ledger() as ledger:
        heard = ledger.fleet.all()
    if as_json:
        print_json([worker_json(one) for one in heard])
    elif heard:
        print_table(workers_table(heard, time.time()))
    else:
        typer.echo("comfyfleet: no worker has told of itself lately", err=True)


def worker_json(one: Heard) -> dict[str, Any]:
    """A worker as programs read it."""
    told = one.status.model_dump(mode="json", exclude={"id"})
    return {**told, "state": one.state, "heard_seconds_ago": round(one.seconds, 1)}


def workers_table(heard: Sequence[Heard], now: float) -> Table:
    """The workers as people read them."""
    table = Table(
        *("worker", "server", "state"),
        *short("slots"),
        *("jobs", "last error"),
        *short("version", "ComfyUI", "up for"),
    )
    for one in heard:
        status = one.status
        state = "gone" if one.state == "gone" else status.state
        table.add_row(
            cell(status.worker),
            cell(status.instance),
            Text(f"{state}: {label(status.reason)}" if status.reason else state),
            f"{len(status.jobs)}/{status.slots}",
            Text("\n").join(cell(f"{job.job_id} {job.stage}") for job in status.jobs),
            cell(label(status.last_error or "", _ERROR_CHARACTERS)),
            cell(status.version),
            cell(status.comfyui_version),
            duration(now - status.started_at),
        )
    return table
