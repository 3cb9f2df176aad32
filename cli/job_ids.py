"""Ids of jobs as arguments, which the shell completes by what the fleet knows."""

import threading
from contextlib import suppress
from typing import Annotated

import typer

# Of these the shell offers those that begin as what is typed.
_OFFERED = 200
# Seconds that whoever has typed waits at most: for names, sentinels and Redis together.
_ASK_SECONDS = 1.0


def complete_job(incomplete: str) -> list[str]:
    """The latest jobs whose ids begin so; none if the fleet cannot be asked, or not at once."""
    from settings import load
    from workers.ledger import Ledger

    found: list[str] = []

    def ask() -> None:
        # A shell that waits for an answer must not be told of errors.
        with suppress(Exception), Ledger(load().ledger_url) as ledger:
            latest = ledger.jobs.latest(limit=_OFFERED)
            found.extend(one.job_id for one in latest if one.job_id.startswith(incomplete))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ASK_SECONDS)
    return list(found)


def check_job(job_id: str) -> str:
    """The id, if it may be one.

    Raises:
        typer.BadParameter: it is empty, or no text.
    """
    from tasks.request import is_encodable, shown

    if not job_id or not is_encodable(job_id):
        raise typer.BadParameter(f"found {shown(job_id)}, expected the id of a job")
    return job_id


def _check_jobs(job_ids: list[str]) -> list[str]:
    return [check_job(one) for one in job_ids]


Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="The job's id.",
        show_default=False,
        autocompletion=complete_job,
        callback=check_job,
    ),
]
JobIds = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB...",
        help="The jobs' ids.",
        show_default=False,
        autocompletion=complete_job,
        callback=_check_jobs,
    ),
]
