"""What is known of a job, wherever that is still known."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cli.errors import CommandError
from cli.exit_codes import ExitCode
from cli.fleet import answering, open_ledger
from settings import load
from tasks.app import app
from tasks.errors import JobCancelledError
from tasks.result import Attempt, JobResult, Progress
from workers.broker.waiting import are_listed, waiting_among
from workers.ledger import Ended

UNKNOWN = "UNKNOWN"

_CANCELLED = JobCancelledError("the job was revoked")

_EXIT_CODES = {
    "SUCCESS": ExitCode.OK,
    "FAILURE": ExitCode.FAILED,
    "REVOKED": ExitCode.FAILED,
    UNKNOWN: ExitCode.UNKNOWN,
}


@dataclass(frozen=True)
class Found:
    """What is known of a job.

    Attributes:
        state: Celery's word for it, or `UNKNOWN`.
        result: of a job that succeeded, as the fields of `JobResult`.
        error: of a job that failed, was cancelled or waits for its next attempt.
        attempts: those that have ended, of a job that has not succeeded.
        progress: of a job that is executing.
    """

    state: str
    result: dict[str, Any] | None = None
    error: Exception | None = None
    attempts: Sequence[Attempt] = ()
    progress: Progress | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Of the command."""
        return _EXIT_CODES.get(self.state, ExitCode.NOT_FINISHED)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in ("SUCCESS", "FAILURE", "REVOKED")


def find(job_id: str, prefix: str) -> Found:
    """Look for a job where results are kept longer and longer.

    Args:
        job_id: of the job.
        prefix: its `output.prefix`, with which its manifest is found when nobody else knows it.

    Raises:
        CommandError: broker or result backend is away, or holds what is none of ours.
        StorageUnavailableError, StorageDeniedError: the object store does not tell.
    """
    in_backend = _in_backend(job_id)
    if in_backend.state in _EXIT_CODES:
        return in_backend
    found = _in_ledger(job_id, in_backend) or _in_store(job_id, prefix)
    if found is not None:
        return found
    if in_backend.state != "PENDING" or _may_wait(job_id):
        return in_backend
    # It may have been begun, and have ended, while its message was looked for.
    now = _in_backend(job_id)
    return now if now.state != "PENDING" else Found(UNKNOWN)


def _may_wait(job_id: str) -> bool:
    """Whether the job waits on the broker, as far as that lets one look."""
    settings = load()
    return not are_listed(settings) or bool(waiting_among(settings.ledger_url, [job_id]))


def _in_backend(job_id: str) -> Found:
    with answering():
        meta = app.backend.get_task_meta(job_id)
    state, content = meta["status"], meta["result"]
    try:
        match state:
            case "SUCCESS":
                return _succeeded(content)
            case "PROGRESS":
                return Found(state, progress=Progress.model_validate(content))
            case "REVOKED":
                return Found(state, error=_CANCELLED)
            case _:
                attempts = [Attempt.model_validate(one) for one in meta.get("attempts", ())]
                failure = content if isinstance(content, Exception) else None
                return Found(state, None, failure, attempts)
    except ValidationError as error:
        raise CommandError(
            "the result backend has the id, but of another task than ours"
        ) from error


def _in_ledger(job_id: str, in_backend: Found) -> Found | None:
    with open_ledger() as ledger:
        ended, record = ledger.ended(job_id), ledger.record(job_id)
        is_cancelled = bool(ledger.jobs.cancelled([job_id]))
    match ended:
        case Ended("cancelled"):
            return Found("REVOKED", error=_CANCELLED)
        case Ended("failed", detail):
            from workers.ledger.outcomes import failure_from

            failed = failure_from(detail)
            return Found("FAILURE", None, failed.error, failed.attempts)
        case Ended(_, key):
            found = _in_manifest(key)
            if found is None:
                raise CommandError(f"the job succeeded, but its manifest {key} is gone")
            return found
    if record is None:
        return Found("REVOKED", error=_CANCELLED) if is_cancelled else None
    state = "STARTED" if in_backend.state == "PENDING" else in_backend.state
    return Found(state, None, in_backend.error, record.attempts, in_backend.progress)


def _in_store(job_id: str, prefix: str) -> Found | None:
    settings = load()
    if not settings.s3_bucket:
        return None
    # It loads boto3, which few commands need.
    from workers.storage.keys import job_folder, manifest_key

    return _in_manifest(manifest_key(job_folder(settings.s3_prefix, prefix.strip("/"), job_id)))


def _in_manifest(key: str) -> Found | None:
    # It loads boto3, which few commands need.
    from workers.bootstrap.clients import object_store

    settings = load()
    if not settings.s3_bucket:
        raise CommandError(f"the result is in the manifest {key}; S3_BUCKET says in which bucket")
    with closing(object_store(settings)) as store:
        content = store.get(key)
    try:
        return _succeeded(json.loads(content)) if content is not None else None
    except ValueError as error:
        raise CommandError(f"{key} is no manifest of ours") from error


def _succeeded(content: Any) -> Found:
    # A later version may have written more than this one knows.
    JobResult.model_validate(content)
    return Found("SUCCESS", content)
