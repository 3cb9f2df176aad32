"""A job as its message brings it, what it may cost, and that its message must come again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import JobError
from tasks.request import JobRequest
from workers.execution.node_policy import NodePolicy
from workers.routing.lanes import Lane

# Seconds after which a job that somebody else has is looked at again, at the latest.
LOOK_SECONDS = 10.0


class NotNow(Exception):  # noqa: N818  # no error: the job goes on
    """The job's message must come again, after so many seconds."""

    def __init__(
        self, seconds: float, error: JobError | None = None, lane: Lane | None = None
    ) -> None:
        """Say when, which error is the reason if one is, and where it waits if not in the queue."""
        super().__init__(seconds)
        self.seconds = seconds
        self.error = error
        self.lane = lane


@dataclass(frozen=True)
class Order:
    """A job as its message brings it.

    Attributes:
        job_id: Celery's task id.
        request: what to do.
        queued_seconds: from enqueue to now.
        priority: as the broker has it.
        redelivered: whether a worker may have had this message before.
        expired: whether it is too late to begin with it.
        revoked: whether this worker has heard that it is not to be begun.
        in_lane: whether it comes from a lane of the queue.
        unable: digests of capabilities that do not suffice, as far as that lane tells.
        is_signed: whether its message had to be signed, and was.
        headers: of the message.
    """

    job_id: str
    request: JobRequest
    queued_seconds: float = 0.0
    priority: int | None = None
    redelivered: bool = False
    expired: bool = False
    revoked: bool = False
    in_lane: bool = False
    unable: frozenset[str] = frozenset()
    is_signed: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def enqueued_at(self) -> float:
        """When it was enqueued, Unix time."""
        return time.time() - self.queued_seconds


@dataclass(frozen=True)
class Limits:
    """How often a job may fail, how large it may be and what it may use.

    Attributes:
        max_attempts: attempts that count.
        max_crashes: workers or ComfyUI servers that it may take down.
        workflow_max_bytes: size of its workflow as JSON above which it is refused.
        nodes: which classes it may use.
    """

    max_attempts: int = 3
    max_crashes: int = 3
    workflow_max_bytes: int = 10_000_000
    nodes: NodePolicy = field(default_factory=NodePolicy)
