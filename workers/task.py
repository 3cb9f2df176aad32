"""The task's body: between Celery's words and the executor's."""

import logging
import time
from datetime import UTC, datetime
from typing import Any, NoReturn

import celery
from celery.exceptions import Ignore
from celery.utils.time import maybe_iso8601
from celery.worker import state

from tasks.app import TASK_NAME
from tasks.enqueue import ENQUEUED_AT
from tasks.errors import (
    CancelledError,
    InvalidRequestError,
    InvalidWorkflowError,
    JobError,
    JobExpiredError,
    UntrustedMessageError,
)
from tasks.request import JobRequest, parse_request, shown
from tasks.result import Attempt, JobResult, Progress
from workers import timeline
from workers.broker.consumer import IS_SIGNED, RECEIVED_AT, ComesAgain, Request, Revoked
from workers.broker.progress import ProgressWriter
from workers.broker.transport import LANE, UNABLE
from workers.execution import Custody, NotNow, Order, Report
from workers.ledger.outcomes import JobFailed
from workers.observing import JobEnded, JobRefused, Observe

logger = logging.getLogger(__name__)


class RunWorkflow(celery.Task):  # type: ignore[misc]  # celery has no types for it
    """`comfyui.run_workflow`. The worker gives it its parts before any message."""

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

    message_secrets: tuple[str, ...] = ()
    """Those of whom messages are believed; without any all are."""

    custody: Custody
    progress: ProgressWriter
    observe: Observe

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a job, or as much of it as is to be done now; arguments are those of `JobRequest`.

        Raises:
            JobError: the job has failed.
            ComesAgain: it goes on later or elsewhere.
            Revoked: it was cancelled.
        """
        # There is none if another task calls this one, as Celery's own `celery.map` can.
        job_id = self.request.id or ""
        try:
            self._check_signature(job_id)
            request = parse_request(args, kwargs)
        except (UntrustedMessageError, InvalidRequestError, InvalidWorkflowError) as error:
            # Refused before there is a job: no attempt is counted.
            if self.custody.knows(job_id):
                logger.warning("came again in another form, which is dropped")
                raise Ignore(error.message) from None
            if not isinstance(error, UntrustedMessageError):
                self.custody.tell_refusal(job_id, kwargs, error)
            self.observe(JobRefused(job_id, error, self.request.headers or {}))
            self.observe(JobEnded(job_id, "failed", error))
            raise
        timeline.mark(job_id, "received", (self.request.headers or {}).get(RECEIVED_AT))
        try:
            result = self._run(request)
        except NotNow as later:
            if later.error is not None:
                self.backend.mark_as_retry(job_id, later.error, request=self.request)
            raise ComesAgain(later.seconds, later.lane) from None
        except CancelledError as error:
            expired = isinstance(error, JobExpiredError)
            raise Revoked(error.message, expired=expired) from None
        except JobFailed as failed:
            _fail(failed.error, failed.attempts)
        return result.model_dump(mode="json")

    def _check_signature(self, job_id: str) -> None:
        if self.message_secrets and self.request.get(IS_SIGNED) is not True:
            if "\n" in job_id:
                raise UntrustedMessageError(
                    f"the job's id {shown(job_id)} has a line break, and so its message no "
                    "signature that counts; enqueue it under an id without (docs/security.md)"
                )
            raise UntrustedMessageError(
                "the message has no valid signature; producers sign with the MESSAGE_SECRET that "
                "this worker has (docs/security.md)"
            )

    def _run(self, request: JobRequest) -> JobResult:
        job_id = self.request.id
        try:
            return self.custody.run(self._order(request), self._report(job_id))
        finally:
            # Before anything else is told of the job.
            self.progress.forget(job_id)

    def _order(self, request: JobRequest) -> Order:
        job_id, headers = self.request.id, self.request.headers or {}
        since = _first_number(headers.get(ENQUEUED_AT), headers.get(RECEIVED_AT))
        return Order(
            job_id=job_id,
            request=request,
            queued_seconds=max(0.0, time.time() - since),
            priority=self.request.delivery_info.get("priority"),
            redelivered=bool(self.request.delivery_info.get("redelivered")),
            expired=_is_past(self.request.expires),
            revoked=job_id in state.revoked,
            # Beside the headers, so that none of a producer's can stand in their place.
            in_lane=bool(self.request.get(LANE)),
            unable=frozenset(self.request.get(UNABLE) or ()),
            is_signed=self.request.get(IS_SIGNED) is True,
            headers=headers,
        )

    def _report(self, job_id: str) -> Report:
        highest = 0.0

        def report(progress: Progress) -> None:
            nonlocal highest
            highest = max(highest, progress.value)
            self.progress.tell(job_id, progress.model_copy(update={"value": highest}))

        return report


def _fail(error: JobError, attempts: tuple[Attempt, ...] = ()) -> NoReturn:
    told = type(error)(_with_attempts(error.message, attempts))
    # For the result backend, which keeps it beside the error.
    told.attempts = [attempt.model_dump(mode="json") for attempt in attempts]
    # Without what caused it: the traceback goes to the result backend, and foreign errors may
    # quote headers and URLs.
    raise told from None


def _with_attempts(message: str, attempts: tuple[Attempt, ...]) -> str:
    if len(attempts) < 2:
        return message
    told = ", ".join(
        f"{a.number} on {a.instance} {(a.error or '').partition(':')[0]} after {a.seconds:.1f} s"
        for a in attempts
    )
    return f"{message} (attempts: {told})"


def _is_past(expires: Any) -> bool:
    if expires is None:
        return False
    moment = expires if isinstance(expires, datetime) else maybe_iso8601(expires)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.now(UTC) > aware


def _first_number(*values: Any) -> float:
    return next((v for v in values if isinstance(v, int | float) and 0 < v < 1e12), time.time())
