"""`comfyfleet submit`: a workflow as a job on the queue, or as one for each row of params."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import CommandError, UsageError
from cli.following import Download, Wait, follow
from cli.output import AsJson, print_json
from cli.rows import combine, pairs, read_params, read_sweeps, read_table
from cli.sources import read_sources
from cli.workflow_files import WorkflowFile, workflow_in
from settings import load
from tasks import Batch, JobError, enqueue, enqueue_batch
from tasks.errors import InvalidRequestError

_Many = list[str] | None


def submit(
    file: WorkflowFile,
    *,
    param: Annotated[
        _Many, typer.Option(metavar="NODE.INPUT=VALUE", help="Set an input, by node id or title.")
    ] = None,
    params: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="A job a row of this CSV or JSONL.")
    ] = None,
    sweep: Annotated[
        _Many, typer.Option(metavar="NODE.INPUT=A,B", help="A job a value; of several, a mix.")
    ] = None,
    source: Annotated[
        _Many, typer.Option("--input", metavar="NAME=PATH_OR_URL", help="A file to place first.")
    ] = None,
    priority: Annotated[
        str | None, typer.Option(help="urgent, normal, batch, or the broker's own number.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Folder of the objects.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds a job may execute.")] = None,
    job_id: Annotated[str | None, typer.Option(help="The job's id; twice is one job.")] = None,
    batch_id: Annotated[
        str | None, typer.Option(help="The batch's id; twice is one batch.")
    ] = None,
    metadata: Annotated[
        _Many, typer.Option(metavar="NAME=VALUE", help="A text that comes back with the result.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Who is told of each job's end.")
    ] = None,
    wait: Wait = False,
    download: Download = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a workflow, once or for each row of a table and each mix of a sweep.

    Prints the id of the job, or of the batch. With --wait or --download the exit code is 1 if a job
    failed. Ctrl-C ends the waiting, and not the jobs.
    """
    given = read_params(param or ())
    table = read_table(params) if params is not None else None
    rows = combine(given, table, read_sweeps(sweep or ()))
    shared: dict[str, Any] = {
        "inputs": read_sources(source or (), len(rows or [{}])),
        "output": {"prefix": prefix} if prefix is not None else None,
        "timeout_seconds": timeout,
        "metadata": pairs("--metadata", metadata or ()),
        "webhook": {"url": webhook} if webhook is not None else None,
        "priority": int(priority) if priority and priority.isdecimal() else priority,
    }
    if rows is None and batch_id is not None:
        raise UsageError("--batch-id: this is one job; name it by --job-id")
    if rows is not None and job_id is not None:
        raise UsageError("--job-id: these are several jobs; name them by --batch-id")
    workflow = workflow_in(file)
    with enqueuing():
        if rows is None:
            job = enqueue(workflow, params=given, job_id=job_id, **shared)
            jobs, told = Batch(job.id, [job.id]), {"job_id": job.id}
        else:
            jobs = enqueue_batch(workflow, rows, batch_id=batch_id, **shared)
            told = {"batch_id": jobs.id, "job_ids": list(jobs.job_ids)}
    if wait or download is not None:
        follow(jobs, download, is_one=rows is None, as_json=as_json)
    elif as_json:
        print_json(told, indent=None)
    else:
        typer.echo(jobs.id)


@contextmanager
def enqueuing() -> Iterator[None]:
    """Tell why jobs were not enqueued, and which were.

    Raises:
        UsageError: an argument is wrong.
        CommandError: the workflow is, or broker or result backend is away or has no room.
    """
    try:
        yield
    except Exception as error:
        # Broker and result backend each have errors of their own.
        why = str(error)
        if not isinstance(error, JobError):
            masked = load().masked()
            why = (
                f"broker or result backend did not answer ({type(error).__name__}); "
                f"CELERY_BROKER_URL is {masked['CELERY_BROKER_URL']}, "
                f"CELERY_RESULT_BACKEND is {masked['CELERY_RESULT_BACKEND']}"
            )
        kind = UsageError if isinstance(error, InvalidRequestError) else CommandError
        raise kind("; ".join([why, *getattr(error, "__notes__", ())])) from error
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", ()):
            typer.echo(f"comfyfleet: {note}", err=True)
        raise
