"""`comfyfleet dead`: the jobs that were put aside."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.errors import CommandError
from cli.fleet import open_ledger
from cli.output import AsJson, attempts_table, cell, print_json, print_table
from settings import load
from tasks import JobError, enqueue
from tasks.request import parse_request
from workers.ledger.dead_letters import DeadLetter, DeadLetters

dead = typer.Typer(
    help="Jobs that were put aside because they take down whoever tries them.",
    no_args_is_help=True,
    add_completion=False,
)

Job = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)]
JobUnlessAll = Annotated[
    str | None,
    typer.Argument(metavar="JOB", help="The job's id; or --all.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Every job that was put aside.")]

_REPLAYS = uuid.UUID("9a1f0d3e-53c7-4b1e-9d8f-6f2f5a0c7e41")


@dead.command("list")
def show_list(as_json: AsJson = False) -> None:
    """List the jobs that were put aside, oldest first."""
    with open_ledger() as ledger:
        letters = ledger.dead_letters.all()
    if as_json:
        print_json([one.model_dump(mode="json", exclude={"request"}) for one in letters])
        return
    if not letters:
        typer.echo("No job was put aside.")
        return
    table = Table("job", "put aside", "priority", "attempts", "last error")
    for one in letters:
        table.add_row(
            cell(one.job_id),
            _time(one.at),
            _number(one.priority),
            str(len(one.attempts)),
            cell(one.error),
        )
    print_table(table)


@dead.command()
def show(
    job: Job,
    full: Annotated[bool, typer.Option("--full", help="Show data: URLs, however long.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one of them: its attempts, its last error and its request."""
    with open_ledger() as ledger:
        letter = _get(ledger.dead_letters, job)
    request = letter.request if full else _without_data(letter.request)
    if as_json:
        print_json({**letter.model_dump(mode="json"), "request": request})
        return
    table = Table(show_header=False)
    table.add_row("job", cell(letter.job_id))
    table.add_row("put aside", _time(letter.at))
    table.add_row("priority", _number(letter.priority))
    table.add_row("last error", cell(letter.error))
    print_table(table)
    print_table(attempts_table(letter.attempts))
    print_json(request)


@dead.command()
def replay(job: JobUnlessAll = None, every: All = False, as_json: AsJson = False) -> None:
    """Enqueue a new job with the same request and priority, and forget the one put aside.

    Its metadata has the old job's id as `replay_of`. With --json, one line of JSON a job.
    """
    with open_ledger() as ledger:
        for letter in _chosen(ledger.dead_letters, job, every):
            job_id = _replay(letter)
            # Only now: whatever happens before, the letter is still there.
            ledger.dead_letters.discard(letter.job_id)
            if as_json:
                print_json({"job_id": job_id, "replay_of": letter.job_id}, indent=None)
            else:
                typer.echo(job_id)


@dead.command()
def discard(job: JobUnlessAll = None, every: All = False, as_json: AsJson = False) -> None:
    """Forget a job that was put aside. With --json, one line of JSON a job."""
    with open_ledger() as ledger:
        for letter in _chosen(ledger.dead_letters, job, every):
            ledger.dead_letters.discard(letter.job_id)
            if as_json:
                print_json({"job_id": letter.job_id}, indent=None)
            else:
                typer.echo(letter.job_id)


def _chosen(letters: DeadLetters, job: str | None, every: bool) -> list[DeadLetter]:
    if (job is not None) == every:
        raise typer.BadParameter("name a job, or all of them with --all")
    return letters.all() if job is None else [_get(letters, job)]


def _get(letters: DeadLetters, job: str) -> DeadLetter:
    letter = letters.get(job)
    if letter is None:
        raise CommandError(
            f"no job {cell(job)} was put aside; comfyfleet dead list shows which were"
        )
    return letter


def _replay(letter: DeadLetter) -> str:
    """Enqueue a job that was put aside once more; returns the new job's id.

    The id is a function of the letter: two replays of it at once, or one more after a crash, are
    two messages of one job, which runs once for as long as the ledger remembers it.
    """
    if letter.is_signed and not load().message_secret:
        raise CommandError(
            f"job {cell(letter.job_id)} was signed, and there is no MESSAGE_SECRET to sign its "
            "replay with, so that workers would refuse it; it stays in the dead letters"
        )
    job_id = str(uuid.uuid5(_REPLAYS, f"{letter.at!r} {letter.job_id}"))
    parse_request((), letter.request)
    metadata = {**letter.request.get("metadata", {}), "replay_of": letter.job_id}
    try:
        enqueue(
            **{**letter.request, "metadata": metadata},
            priority=letter.priority,
            job_id=job_id,
        )
    except JobError:
        raise
    except Exception as error:
        # Broker and result backend each have errors of their own.
        raise CommandError(
            f"job {cell(letter.job_id)} could not be enqueued ({type(error).__name__}); "
            "it stays in the dead letters"
        ) from error
    return job_id


def _without_data(value: Any) -> Any:
    """A part of a request with the lengths of `data:` URLs in their places."""
    match value:
        case str() if value[:5].lower() == "data:":
            return f"data:... ({len(value):,} characters)"
        case Mapping():
            return {name: _without_data(one) for name, one in value.items()}
        case list():
            return [_without_data(one) for one in value]
        case _:
            return value


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _number(priority: int | None) -> str:
    return "" if priority is None else str(priority)
