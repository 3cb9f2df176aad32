"""A job as the executor sees it: one attempt at one request."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tasks.errors import JobError
from tasks.request import JobRequest
from tasks.result import Attempt

_PROMPT_IDS = uuid.UUID("5ae6fb01-7c3c-5d1e-9b51-0d4a4c1d3f6e")


def prompt_id(job_id: str, attempt: int) -> str:
    """The prompt's id: the same for the same attempt, so that a redelivered job finds its own."""
    return str(uuid.uuid5(_PROMPT_IDS, f"{job_id}:{attempt}"))


class Start(Enum):
    """How an attempt comes by its prompt."""

    SUBMIT = "submit"
    ADOPT = "adopt"
    """It waits, runs or has ended on this worker's server."""
    COLLECT = "collect"
    """It has ended on another server, which still has its files."""


@dataclass(frozen=True)
class Job:
    """One attempt at a job.

    Attributes:
        id: Celery's task id.
        request: what to do.
        folder: where its objects go, without a slash at its end.
        number: the attempt's number, from 1.
        prompt: the number of the attempt from which the prompt's id is made; an earlier one if
            this attempt goes on with its prompt.
        instance: base URL of the server that has, or is to have, the prompt.
        client_id: the websocket client that hears of the prompt.
        start: how the attempt comes by its prompt.
        age: seconds since the prompt's own attempt began.
        earlier: the attempts before this one.
        bypass: nodes to execute even if the server has them in its cache.
        queued_seconds: from enqueue to start.
        enqueued_at: when it was enqueued, Unix time; the same for all attempts.
    """

    id: str
    request: JobRequest
    instance: str
    client_id: str
    folder: str
    number: int = 1
    prompt: int = 1
    start: Start = Start.SUBMIT
    age: float = 0.0
    earlier: tuple[Attempt, ...] = ()
    bypass: tuple[str, ...] = ()
    queued_seconds: float = 0.0
    enqueued_at: float = 0.0

    @property
    def prompt_id(self) -> str:
        """The id of the prompt."""
        return prompt_id(self.id, self.prompt)

    def attempt(self, seconds: float, error: JobError | None) -> Attempt:
        """What is kept of this attempt."""
        return Attempt(
            number=self.number,
            instance=self.instance,
            prompt_id=self.prompt_id,
            error=f"{type(error).__name__}: {error.message}" if error else None,
            seconds=round(seconds, 3),
        )


class AttemptFailed(Exception):  # noqa: N818  # an outcome, of which the error is a part
    """An attempt ended without a result."""

    def __init__(
        self,
        error: JobError,
        *,
        executing: bool = False,
        waited: bool = False,
        rendered: bool = False,
        nodes: Sequence[str] = (),
    ) -> None:
        """Tell what ended it, and what is known beside.

        Args:
            error: what ended it.
            executing: whether the server was executing the prompt.
            waited: whether nothing was wrong but that the server was away.
            rendered: whether the prompt had ended well.
            nodes: those that have files, if it had.
        """
        super().__init__(error)
        self.error = error
        self.executing = executing
        self.waited = waited
        self.rendered = rendered
        self.nodes = tuple(nodes)
