"""`comfyfleet cancel`: jobs that are not to be begun, or not to go on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from cli.exit_codes import ExitCode
from cli.fleet import answering, open_ledger
from cli.job_ids import JobIds
from cli.output import AsJson, cell, print_json
from settings import load
from tasks.app import app
from tasks.errors import JobError
from workers.broker.waiting import are_listed, waiting_among
from workers.ledger import Ledger

_ENDED = {"SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "cancelled"}

_SENTENCES = {
    "cancelled": "is cancelled: it will not be begun",
    "stopping": "is being stopped",
    "running": "runs, and goes on",
    "ended": "has {how} before",
    "unknown": "is not known: it was never enqueued, or is forgotten",
}


@dataclass(frozen=True)
class Fate:
    """What becomes of a job.

    Attributes:
        job_id: of the job.
        outcome: `cancelled`, `stopping`, `running`, `ended` or `unknown`.
        how: one that had ended before has ended.
    """

    job_id: str
    outcome: str
    how: str | None = None

    @property
    def sentence(self) -> str:
        """It for people."""
        told = _SENTENCES[self.outcome].format(how=self.how)
        return f"job {self.job_id} {told.replace('has cancelled', 'was cancelled')}"


def cancel(
    jobs: JobIds,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Cancel only what is not running.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs that wait, and stop those that run.

    It holds also for jobs that no worker has seen yet, and while no worker runs. The exit code is 0
    if each of them is cancelled, being stopped, or kept running on demand; 1 if one had succeeded
    or failed before; 4 if one is not known.
    """
    with open_ledger() as ledger:
        fates = _cancel(ledger, tuple(dict.fromkeys(jobs)), running=not keep_running)
    _announce(fates, terminate=not keep_running)
    if as_json:
        print_json([vars(one) for one in fates])
    else:
        for one in fates:
            typer.echo(cell(one.sentence), err=one.outcome in ("ended", "unknown"))
    raise typer.Exit(exit_code(fates))


def exit_code(fates: Iterable[Fate]) -> ExitCode:
    """What the command says to other programs: the worst that it has met."""
    codes = {_code(one) for one in fates}
    return max(codes, default=ExitCode.OK)


def _code(fate: Fate) -> ExitCode:
    if fate.outcome == "unknown":
        return ExitCode.UNKNOWN
    late = fate.outcome == "ended" and fate.how != "cancelled"
    return ExitCode.FAILED if late else ExitCode.OK


def _cancel(ledger: Ledger, jobs: Sequence[str], *, running: bool) -> list[Fate]:
    known = {job_id: _known(ledger, job_id, running=running) for job_id in jobs}
    strange = [job_id for job_id in jobs if known[job_id] is None]
    ours = _enqueued(strange)
    fates = []
    for job_id in jobs:
        fate = known[job_id] or (
            Fate(job_id, "cancelled")
            if job_id in ours
            # It may have been begun while its message was looked for.
            else _known(ledger, job_id, running=running) or Fate(job_id, "unknown")
        )
        if fate.outcome in ("cancelled", "stopping"):
            # It may have ended, or been begun, just now.
            outcome = ledger.cancel(job_id, running=running)
            fate = Fate(job_id, "ended", outcome) if outcome else fate
        fates.append(fate)
    return fates


def _known(ledger: Ledger, job_id: str, *, running: bool) -> Fate | None:
    """What is to become of a job, as far as ledger and result backend know it."""
    entry = ledger.jobs.entry(job_id)
    if entry is None:
        with answering():
            state = app.backend.get_task_meta(job_id)["status"]
        return Fate(job_id, "ended", _ENDED[state]) if state in _ENDED else None
    match entry.state:
        case "running":
            return Fate(job_id, "stopping" if running else "running")
        case "waiting":
            return Fate(job_id, "cancelled")
        case ended:
            return Fate(job_id, "ended", ended)


def _enqueued(jobs: Sequence[str]) -> frozenset[str]:
    """Those that wait; all of them if the broker does not let one look."""
    settings = load()
    if not jobs or not are_listed(settings):
        return frozenset(jobs)
    return waiting_among(settings.ledger_url, jobs)


def _announce(fates: Iterable[Fate], *, terminate: bool) -> None:
    """Have workers hear of it at once; they would find it in the ledger in some seconds."""
    concerned = [one.job_id for one in fates if one.outcome in ("cancelled", "stopping")]
    if not concerned:
        return
    try:
        app.control.revoke(concerned, terminate=terminate)
    except JobError:
        raise
    except Exception as error:  # noqa: BLE001
        # Each broker has errors of its own.
        name = type(error).__name__
        typer.echo(f"comfyfleet: workers hear of it only in some seconds ({name})", err=True)
