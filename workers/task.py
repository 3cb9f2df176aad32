"""The task's body: between Celery's words and the executor's."""

import logging
import random
import time
from typing import Any, NoReturn

import celery
from celery.exceptions import Reject
from pydantic import TypeAdapter, ValidationError

from tasks.app import TASK_NAME
from tasks.enqueue import ENQUEUED_AT
from tasks.errors import InternalError, InvalidRequestError, JobError
from tasks.request import JobRequest, parse_request
from tasks.result import Attempt, Progress
from tasks.retry import Fail, Retry, after_failure
from workers.broker.consumer import RECEIVED_AT, Request
from workers.execution import Executor, Job, Report

logger = logging.getLogger(__name__)

# The message header that carries the attempts before this one.
ATTEMPTS = "attempts"

# Seconds between two writes of a job's progress to the result backend.
PROGRESS_INTERVAL = 0.5


class RunWorkflow(celery.Task):  # type: ignore[misc]  # celery has no types for it
    """`comfyui.run_workflow`. The composition root gives it its executor before any message."""

    name = TASK_NAME
    Request = Request
    # A job whose worker dies must be done by another, so its message is kept until it ended.
    acks_late = True
    # Results can be long, and hold presigned URLs: Celery's log line shows no more than the id.
    resultrepr_maxsize = 64
    # Ours bounds the attempts.
    max_retries = None
    # Failures of jobs are results: no traceback in the worker's log.
    throws = (JobError,)

    executor: Executor
    max_attempts: int

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run one attempt at a job; arguments are the fields of `JobRequest`.

        Raises:
            JobError: the job has failed.
            celery.exceptions.Retry: another attempt is on the queue.
        """
        started = time.monotonic()
        # Refused before there is a job: no attempt is counted.
        request = parse_request(args, kwargs)
        job = self._job(request)
        logger.info("job %s: attempt %d on %s", job.id, job.attempt, self.executor.instance)
        try:
            result = self.executor.run(job, self._throttled_report(job.id))
        except JobError as error:
            self._end_attempt(job, started, error)
        except Exception as error:
            logger.exception("job %s: a fault of comfyfleet's own", job.id)
            self._end_attempt(job, started, _internal(error))
        logger.info("job %s: finished with %d outputs", job.id, len(result.outputs))
        return result.model_dump(mode="json")

    def _job(self, request: JobRequest) -> Job:
        headers = self.request.headers or {}
        since = _first_number(headers.get(ENQUEUED_AT), headers.get(RECEIVED_AT))
        return Job(
            id=self.request.id,
            request=request,
            attempt=self.request.retries + 1,
            earlier=_earlier_attempts(headers.get(ATTEMPTS, [])),
            redelivered=bool(self.request.delivery_info.get("redelivered")),
            queued_seconds=max(0.0, time.time() - since),
        )

    def _end_attempt(self, job: Job, started: float, error: JobError) -> NoReturn:
        """Put the next attempt on the queue, or let the job fail."""
        attempt = self.executor.attempt(job, started, error)
        jitter = random.random()  # noqa: S311  # no secret
        match after_failure(error, job.attempt, self.max_attempts, jitter):
            case Retry(seconds):
                logger.warning(
                    "job %s: attempt %d failed, again in %.1f s: %s",
                    *(job.id, job.attempt, seconds, error.message),
                )
                attempts = [a.model_dump(mode="json") for a in (*job.earlier, attempt)]
                headers = {**(self.request.headers or {}), ATTEMPTS: attempts}
                try:
                    raise self.retry(exc=error, countdown=seconds, headers=headers)
                except Reject as rejected:
                    # Celery drops a job whose next attempt it cannot publish. This one goes back.
                    raise Reject(rejected.reason, requeue=True) from error
            case Fail():
                # Without what caused it: the traceback goes to the result backend, and foreign
                # errors may quote headers and URLs.
                raise error.with_traceback(None) from None

    def _throttled_report(self, job_id: str) -> Report:
        told_at = float("-inf")
        highest = 0.0

        def report(progress: Progress) -> None:
            nonlocal told_at, highest
            highest = max(highest, progress.value)
            now = time.monotonic()
            if now - told_at < PROGRESS_INTERVAL:
                return
            told_at = now
            meta = progress.model_copy(update={"value": highest}).model_dump(mode="json")
            try:
                self.update_state(task_id=job_id, state="PROGRESS", meta=meta)
            except Exception as error:  # noqa: BLE001
                # Nobody may lose a job because nobody could be told how far it was.
                logger.warning("progress could not be written: %s", error)

        return report


def _earlier_attempts(header: Any) -> tuple[Attempt, ...]:
    try:
        return tuple(TypeAdapter(list[Attempt]).validate_python(header, extra="ignore"))
    except ValidationError:
        raise InvalidRequestError(f"the message header {ATTEMPTS!r} is not ours") from None


def _first_number(*values: Any) -> float:
    return next((v for v in values if isinstance(v, int | float) and 0 < v < 1e12), time.time())


def _internal(error: Exception) -> InternalError:
    return InternalError(
        f"comfyfleet itself failed with {type(error).__name__}; the worker's log says where"
    )
