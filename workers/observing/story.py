"""Events as lines of a job's story, for people to read after it."""

import time
from dataclasses import dataclass
from typing import Any, Literal

from tasks.errors import InvalidRequestError, InvalidWorkflowError, JobError
from workers.observing.events import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobTaken,
    StageEnded,
)

Weight = Literal["may", "must", "refused"]


@dataclass(frozen=True)
class Line:
    """One line of a story.

    Attributes:
        job_id: of the job.
        told: `at` (Unix time), `event`, and what belongs to it.
        weight: whether it may be left out of a long story, must stand there, or says that a job
            has failed that may have been refused, so that the ledger knows nothing of it.
    """

    job_id: str
    told: dict[str, Any]
    weight: Weight = "must"


def line_of(event: Event, worker: str) -> Line | None:
    """The line that tells of an event; None of one that is no part of a job's story."""
    at = time.time()
    weight: Weight = "must"
    told: dict[str, Any]
    match event:
        case JobTaken():
            name, at = "taken", event.taken_at
            told = {"worker": worker, "enqueued_at": event.enqueued_at, "is_new": event.is_new}
        case AttemptBegan():
            name = "attempt_began"
            told = {"number": event.number, "start": event.start}
            told |= {"instance": event.instance, "prompt_id": event.prompt_id}
        case StageEnded():
            name, at = "stage_ended", event.ended_at
            told = {"stage": event.stage, "seconds": round(event.seconds, 3)}
        case FileStored():
            name, at, weight = "file_stored", event.ended_at, "may"
            told = {"node_id": event.node_id, "key": event.key, "size_bytes": event.size_bytes}
        case AttemptEnded():
            name = "attempt_ended"
            told = {"number": event.number, "error": _error(event.error)}
            told |= {"again_in": event.again_in}
        case JobEnded():
            name, weight = "ended", "refused" if _may_be_refused(event.error) else "must"
            told = {"outcome": event.outcome, "error": _error(event.error)}
        case _:
            # What a duplicate met, and what nodes took: a job's story is the same without.
            return None
    return Line(event.job_id, {"at": round(at, 3), "event": name, **told}, weight)


def _may_be_refused(error: JobError | None) -> bool:
    return isinstance(error, InvalidRequestError | InvalidWorkflowError)


def _error(error: JobError | None) -> str | None:
    return f"{type(error).__name__}: {error.message}" if error is not None else None
