"""`comfyfleet result`: what became of a job, wherever that is still known."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import typer
from pydantic import ValidationError
from rich.table import Table

from cli.errors import CommandError
from cli.fleet import answering, open_ledger
from cli.outcomes import Outcome, print_shown
from cli.output import attempts_table, cell, print_json, print_table
from settings import load
from tasks import app
from tasks.errors import JobCancelledError
from tasks.result import Attempt, JobResult, Progress
from workers.broker.waiting import is_waiting
from workers.ledger import Ended
from workers.storage.keys import job_folder, manifest_key

UNKNOWN = "UNKNOWN"

_EXIT_CODES = {"SUCCESS": 0, "FAILURE": 1, "REVOKED": 1, UNKNOWN: 4}
_NOT_FINISHED = 3


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
    def exit_code(self) -> int:
        """Of the command."""
        return _EXIT_CODES.get(self.state, _NOT_FINISHED)


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
    settings = load()
    # RabbitMQ does not tell which messages it has.
    may_wait = settings.on_rabbitmq or is_waiting(settings.ledger_url, job_id)
    if in_backend.state != "PENDING" or may_wait:
        return in_backend
    return Found(UNKNOWN)


def show(job_id: str, found: Found, *, as_json: bool) -> None:
    """Print what was found; what is no success says so on stderr, too."""
    if as_json:
        print_json(_as_json(job_id, found))
    elif found.result is not None:
        _show_result(found.result)
    elif found.attempts:
        print_table(attempts_table(found.attempts))
    if found.exit_code:
        typer.echo(f"comfyfleet: job {cell(job_id)} {_sentence(found)}", err=True)


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
                return Found(state, error=JobCancelledError("the job was revoked"))
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
    match ended:
        case Ended("cancelled"):
            return Found("REVOKED", error=JobCancelledError("the job was revoked"))
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
        return None
    state = "STARTED" if in_backend.state == "PENDING" else in_backend.state
    return Found(state, None, in_backend.error, record.attempts, in_backend.progress)


def _in_store(job_id: str, prefix: str) -> Found | None:
    settings = load()
    if not settings.s3_bucket:
        return None
    return _in_manifest(manifest_key(job_folder(settings.s3_prefix, prefix.strip("/"), job_id)))


def _in_manifest(key: str) -> Found | None:
    # It loads boto3, which few commands need.
    from workers.bootstrap import object_store

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


def _as_json(job_id: str, found: Found) -> dict[str, Any]:
    told: dict[str, Any] = {"job_id": job_id, "state": found.state}
    if found.result is not None:
        return {**told, "result": found.result}
    if found.progress is not None:
        told["progress"] = found.progress.model_dump(mode="json")
    if found.error is not None:
        told["error"] = {"type": type(found.error).__name__, "message": str(found.error)}
    if found.state != UNKNOWN:
        told["attempts"] = [one.model_dump(mode="json") for one in found.attempts]
    return told


def _show_result(content: dict[str, Any]) -> None:
    result = JobResult.model_validate(content)
    presigned = any(output.url for output in result.outputs)
    table = Table("node", "kind", "file", "size", "uri", *(["url"] if presigned else []))
    for output in result.outputs:
        size = f"{output.size_bytes / 1000:.1f} kB"
        of_file = (output.node_id, output.kind, output.filename, size, output.uri)
        table.add_row(*map(cell, (*of_file, *([output.url] if presigned else []))))
    if result.outputs:
        print_table(table)
    print_shown([Outcome(result.job_id, None, result)])
    print_table(attempts_table(result.attempts))


def _sentence(found: Found) -> str:
    why = f"{type(found.error).__name__}: {found.error}" if found.error is not None else ""
    match found.state:
        case "FAILURE":
            return f"failed: {why}"
        case "REVOKED":
            return "was cancelled"
        case "RETRY":
            return f"waits for its next attempt after {why}"
        case "PENDING":
            unsure = ", or is not known: RabbitMQ does not tell" if load().on_rabbitmq else ""
            return f"waits in the queue{unsure}"
        case "UNKNOWN":
            hint = "its output.prefix, if it had one, to --prefix"
            if not load().s3_bucket:
                hint = "the bucket of its manifest to S3_BUCKET"
            return f"is not known: it was never enqueued, or is forgotten; perhaps give {hint}"
        case _:
            return f"has not finished: {_progress(found.progress)}"


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return "a worker has begun it"
    step = f", step {progress.step} of {progress.steps}" if progress.steps else ""
    node = f", node {progress.node_id} ({progress.class_type}){step}" if progress.node_id else ""
    return f"{progress.stage}, {progress.value:.0%}{node}, on {progress.instance}"
