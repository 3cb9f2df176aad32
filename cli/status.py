"""`comfyfleet status`: how far a job is."""

import sys
import time
from typing import Annotated, Any

import typer

from cli.finding import Found, find
from cli.job_ids import Job
from cli.output import AsJson, bar, cell, print_json
from cli.telling import sentence
from tasks.handle import LOOK_SECONDS
from tasks.result import Progress

_FIELDS = tuple(Progress.model_fields)


def status(
    job: Job,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until it has ended; with --json a line a change.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print how far a job is, or what became of it.

    The exit code is 0 if the job succeeded, 1 if it failed or was cancelled, 3 if it has not
    finished yet, and 4 if it is not known.
    """
    found = _watch(job, as_json=as_json) if watch else find(job, "")
    if not watch or not as_json:
        _print(job, found, as_json=as_json)
    raise typer.Exit(found.exit_code)


def as_flat(job_id: str, found: Found) -> dict[str, Any]:
    """What is known of a job as programs read it: the same names whatever its state."""
    told: dict[str, Any] = {"job_id": job_id, "state": found.state, **dict.fromkeys(_FIELDS)}
    if found.progress is not None:
        told |= found.progress.model_dump(mode="json")
    if found.result is not None:
        told |= {"value": 1.0, "instance": found.result["instance"]}
    elif found.attempts and found.progress is None:
        told["instance"] = found.attempts[-1].instance
    error = found.error
    told["error"] = error and {"type": type(error).__name__, "message": str(error)}
    return told


def _print(job_id: str, found: Found, *, as_json: bool) -> None:
    if as_json:
        print_json(as_flat(job_id, found))
    else:
        typer.echo(f"job {cell(job_id)} {_sentence(found)}")


def _watch(job_id: str, *, as_json: bool) -> Found:
    """The end of a job; on the way a bar on a terminal, else a line a change."""
    if as_json or not sys.stderr.isatty():
        return _follow(job_id, _Lines(job_id, as_json=as_json))
    with bar() as show:
        return _follow(job_id, lambda found: show(_value(found), _sentence(found)))


def _follow(job_id: str, tell: Any) -> Found:
    while True:
        found = find(job_id, "")
        tell(found)
        if found.has_ended or found.state == "UNKNOWN":
            return found
        time.sleep(LOOK_SECONDS)


class _Lines:
    """Says how far a job is whenever that has changed."""

    def __init__(self, job_id: str, *, as_json: bool) -> None:
        self._job_id = job_id
        self._as_json = as_json
        self._told: dict[str, Any] = {}

    def __call__(self, found: Found) -> None:
        told = as_flat(self._job_id, found)
        if told == self._told:
            return
        self._told = told
        if self._as_json:
            print_json(told, indent=None)
            sys.stdout.flush()
        elif not found.has_ended:
            typer.echo(_sentence(found), err=True)


def _value(found: Found) -> float:
    return found.progress.value if found.progress is not None else float(found.has_ended)


def _sentence(found: Found) -> str:
    if found.result is not None:
        return f"succeeded on {found.result['instance']}"
    return str(cell(sentence(found)))
