"""The states of jobs: Celery's words for programs, and words for people."""

from collections.abc import Sequence
from enum import StrEnum

import typer

from tasks.request import did_you_mean, shown
from workers.ledger.jobs import State


class Kind(StrEnum):
    """A state by which jobs can be listed."""

    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# What `status` and `result` call it.
CELERY = {
    Kind.WAITING: "PENDING",
    Kind.RUNNING: "PROGRESS",
    Kind.RETRYING: "RETRY",
    Kind.SUCCEEDED: "SUCCESS",
    Kind.FAILED: "FAILURE",
    Kind.CANCELLED: "REVOKED",
}
_OF_CELERY = {word: kind for kind, word in CELERY.items()} | {"STARTED": Kind.RUNNING}


def read_kind(text: str) -> Kind:
    """A state as people, or Celery, call it.

    Raises:
        typer.BadParameter: there is none of that name.
    """
    found = _OF_CELERY.get(text.upper())
    if found is not None:
        return found
    try:
        return Kind(text.lower())
    except ValueError:
        near = did_you_mean(text.lower(), [kind.value for kind in Kind])
        raise typer.BadParameter(
            f"found {shown(text)}, expected {', '.join(Kind)}{near}", param_hint="--state"
        ) from None


def complete_kind(incomplete: str) -> list[str]:
    """The states that begin so."""
    return [kind.value for kind in Kind if kind.startswith(incomplete.lower())]


# What the ledger calls it; of a job that waits in the queue it knows nothing.
_OF_LEDGER: dict[State, Kind] = {
    "running": Kind.RUNNING,
    "waiting": Kind.RETRYING,
    "succeeded": Kind.SUCCEEDED,
    "failed": Kind.FAILED,
    "cancelled": Kind.CANCELLED,
}


def kind_of(state: State) -> Kind:
    """The kind of a state of the ledger."""
    return _OF_LEDGER[state]


def ledger_states(kinds: Sequence[Kind]) -> list[State]:
    """The states of the ledger that are of these kinds."""
    return [state for state, kind in _OF_LEDGER.items() if kind in kinds]
