"""Waiting for jobs before somebody's eyes, and saying what became of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from celery.states import PENDING

from cli.fleet import answering
from cli.outcomes import collect, fail_if_any, print_outcomes
from cli.output import bar, print_json
from tasks import Batch, BatchProgress

Wait = Annotated[bool, typer.Option("--wait", help="Wait until all has ended.")]
Download = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Wait, and save the files there.", file_okay=False),
]


def follow(batch: Batch, folder: Path | None, *, is_one: bool, as_json: bool) -> None:
    """Wait for every job, save what they have made, and print it.

    Args:
        batch: the jobs.
        folder: where files are saved, those of each row in a folder of its own; none: nowhere.
        is_one: it is one job and no batch.
        as_json: print JSON.

    Raises:
        CommandError: the result backend is away, or a file is gone.
        StorageUnavailableError, StorageDeniedError: the object store does not give the files.
        OSError: the folder cannot be written.
        typer.Exit: a job failed.
    """
    if folder is not None:
        # Now, as nobody wants to hear of it after all jobs.
        folder.mkdir(parents=True, exist_ok=True)
    try:
        _watch(batch)
    except KeyboardInterrupt:
        again = f"result {batch.id}` tells of it" if is_one else f"batch {batch.id} --wait` waits"
        end = "" if is_one else f", `comfyfleet batch {batch.id} --cancel` cancels what is left"
        typer.echo(f"comfyfleet: what is enqueued goes on; `comfyfleet {again}{end}", err=True)
        raise
    with answering():
        results = batch.results(raise_on_error=False)
    outcomes = collect(batch.job_ids, results, folder, is_one=is_one)
    if not as_json:
        print_outcomes(outcomes)
    elif is_one:
        print_json(outcomes[0].as_json())
    else:
        told = {"batch_id": batch.id, "job_ids": list(batch.job_ids)}
        print_json({**told, "results": [one.as_json() for one in outcomes]})
    fail_if_any(outcomes)


def _watch(batch: Batch) -> BatchProgress:
    """Wait until every job has ended; on a terminal with a bar, else with a line a change.

    Raises:
        CommandError: the result backend is away.
    """
    with answering():
        if not sys.stderr.isatty():
            return batch.wait(_Lines())
        with bar() as show:
            return batch.wait(lambda now: show(now.value, counts(now)))


def counts(progress: BatchProgress) -> str:
    """How far it is, in words."""
    ended, waiting = progress.ended, progress.states.get(PENDING, 0)
    numbers = {
        "waiting": waiting,
        "running": progress.total - ended - waiting,
        "failed": progress.failed,
    }
    others = "".join(f", {number} {what}" for what, number in numbers.items() if number)
    return f"{ended - progress.failed} of {progress.total} done{others}"


class _Lines:
    """Says how far a batch is whenever more of its jobs have ended."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, progress: BatchProgress) -> None:
        line = counts(progress)
        if line != self._said:
            typer.echo(line, err=True)
            self._said = line
