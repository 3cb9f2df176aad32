"""A job as the executor sees it: one attempt at one request."""

import uuid
from dataclasses import dataclass

from tasks.request import JobRequest
from tasks.result import Attempt

_PROMPT_IDS = uuid.UUID("5ae6fb01-7c3c-5d1e-9b51-0d4a4c1d3f6e")


def prompt_id(job_id: str, attempt: int) -> str:
    """The prompt's id: the same for the same attempt, so that a redelivered job finds its own."""
    return str(uuid.uuid5(_PROMPT_IDS, f"{job_id}:{attempt}"))


@dataclass(frozen=True)
class Job:
    """One attempt at a job.

    Attributes:
        id: Celery's task id.
        request: what to do.
        attempt: its number, from 1.
        earlier: the attempts before this one.
        redelivered: whether another worker, or this one before it died, may have begun it.
        queued_seconds: from enqueue to start.
    """

    id: str
    request: JobRequest
    attempt: int = 1
    earlier: tuple[Attempt, ...] = ()
    redelivered: bool = False
    queued_seconds: float = 0.0

    @property
    def prompt_id(self) -> str:
        """The id under which this attempt is submitted."""
        return prompt_id(self.id, self.attempt)
