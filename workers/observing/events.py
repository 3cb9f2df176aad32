"""Events of a job's life, as values. All times are Unix time, all durations seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.errors import JobError
from tasks.result import JobResult

Stage = Literal["staging", "executing", "uploading", "committing"]


@dataclass(frozen=True)
class JobTaken:
    """A job's message has been taken, and the job is this worker's.

    Attributes:
        job_id: of the job.
        enqueued_at: when it was enqueued, or received where its message does not say.
        taken_at: when it was claimed.
        is_new: nobody had it before.
        redelivered: its message was given to a worker before.
        owner_died: the worker that had it last vanished.
        headers: of the message.
    """

    job_id: str
    enqueued_at: float
    taken_at: float
    is_new: bool
    redelivered: bool
    owner_died: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobSuppressed:
    """A message came of a job that somebody has, or that has ended: it is not run again.

    Attributes:
        job_id: of the job.
        reason: why not.
        redelivered: its message was given to a worker before, as one is that is looked at later.
    """

    job_id: str
    reason: Literal["held", "ended"]
    redelivered: bool = False


@dataclass(frozen=True)
class JobRefused:
    """A job's message has been taken, and is none that can be run: it ends before it is had.

    Attributes:
        job_id: of the job.
        error: why.
        headers: of the message.
    """

    job_id: str
    error: JobError
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttemptBegan:
    """An attempt at a job begins.

    Attributes:
        job_id: of the job.
        number: of the attempt, from 1.
        prompt_id: of its prompt.
        instance: base URL of the server that has, or gets, the prompt.
        start: whether it submits the prompt, or goes on with one that is there.
        models: whether the server has its large models loaded, or loads them.
    """

    job_id: str
    number: int
    prompt_id: str
    instance: str
    start: Literal["submit", "adopt", "collect"]
    models: Literal["warm", "cold", "unknown"] = "unknown"


@dataclass(frozen=True)
class StageEnded:
    """An attempt is through with a stage.

    Attributes:
        job_id: of the job.
        stage: which one.
        ended_at: when.
        seconds: that it took.
        files: that are stored, once it is through with uploading.
    """

    job_id: str
    stage: Stage
    ended_at: float
    seconds: float
    files: int = 0


@dataclass(frozen=True)
class NodeExecution:
    """A node has executed; the seconds of one that did so several times are added up."""

    node_id: str
    class_type: str | None
    began_at: float
    seconds: float


@dataclass(frozen=True)
class NodesExecuted:
    """An attempt's prompt does not execute any more, or not for this worker.

    Attributes:
        job_id: of the job.
        nodes: those of which it was heard that they executed.
    """

    job_id: str
    nodes: tuple[NodeExecution, ...]


@dataclass(frozen=True)
class FileStored:
    """An output file is in the object store."""

    job_id: str
    node_id: str
    key: str
    size_bytes: int
    ended_at: float
    seconds: float


@dataclass(frozen=True)
class AttemptEnded:
    """An attempt has ended.

    Comes once for each `AttemptBegan`, and of attempts that failed before they began.

    Attributes:
        job_id: of the job.
        number: of the attempt.
        error: what ended it; None if it succeeded, was handed on or cancelled.
        again_in: seconds until the next one; None if there is none.
    """

    job_id: str
    number: int
    error: JobError | None = None
    again_in: float | None = None


@dataclass(frozen=True)
class JobEnded:
    """A job has ended, and that is recorded.

    Attributes:
        job_id: of the job.
        outcome: how.
        error: of one that failed or was cancelled.
        result: of one that succeeded.
    """

    job_id: str
    outcome: Literal["succeeded", "failed", "cancelled"]
    error: JobError | None = None
    result: JobResult | None = None


@dataclass(frozen=True)
class JobLeft:
    """A job that was taken is not in this worker's hands any more.

    Comes once for each `JobTaken`, in the same thread and after all else: the job has ended, or
    goes on later or elsewhere.
    """

    job_id: str


@dataclass(frozen=True)
class WebhookTried:
    """A receiver has been told of a job, or could not be.

    Attributes:
        job_id: of the job.
        event: what it was told, such as `job.failed`.
        outcome: what follows.
        status: of its answer; None if there was none.
        seconds: that it took.
    """

    job_id: str
    event: str
    outcome: Literal["delivered", "postponed", "given up"]
    status: int | None
    seconds: float


Event = (
    JobTaken
    | JobSuppressed
    | JobRefused
    | AttemptBegan
    | NodesExecuted
    | StageEnded
    | FileStored
    | AttemptEnded
    | JobEnded
    | JobLeft
    | WebhookTried
)
