"""Telling webhooks by way of the outbox: no job fails of it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks.errors import JobError
from tasks.request import JobRequest
from tasks.result import Attempt, JobResult
from workers.ledger import Outcome
from workers.ledger.outbox import Notice, Outbox
from workers.ledger.patience import until_reached
from workers.webhooks.notices import Notices

logger = logging.getLogger(__name__)


class Webhooks:
    """The webhooks of this worker's jobs. Thread-safe."""

    def __init__(self, notices: Notices, outbox: Outbox, nudge: Callable[[], None]) -> None:
        """Take what it works with.

        Args:
            notices: makes what is told.
            outbox: from where it is sent.
            nudge: is called when there is something to send.
        """
        self._notices = notices
        self._outbox = outbox
        self.nudge = nudge

    def check(self, request: JobRequest) -> None:
        """Refuse a webhook to which nothing could be sent.

        Raises:
            InvalidRequestError: there is nothing to sign with, or the URL cannot be used.
        """
        self._notices.check(request.webhook)

    def of_end(
        self,
        job_id: str,
        request: JobRequest,
        outcome: Outcome,
        *,
        error: JobError | None,
        attempts: Iterable[Attempt],
        result: JobResult | None,
    ) -> Notice | None:
        """What is told of a job's end by the step that records it."""
        return _made(
            lambda: self._notices.of_end(
                job_id, request, outcome, error=error, attempts=attempts, result=result
            )
        )

    def tell_start(self, job_id: str, request: JobRequest, instance: str) -> None:
        """Tell that a job begins, if that can be done at once."""
        notice = _made(lambda: self._notices.of_start(job_id, request, instance))
        if notice is None:
            return
        try:
            self._put(notice)
        except JobError as error:
            logger.warning("its webhook is not told of the start: %s", error)

    def tell_refusal(self, job_id: str, arguments: Mapping[str, Any], error: JobError) -> None:
        """Tell of a request that was refused before there was a job."""
        notice = _made(lambda: self._notices.of_refusal(job_id, arguments, error))
        if notice is not None:
            until_reached(lambda: self._put(notice))

    def _put(self, notice: Notice) -> bool:
        is_put = self._outbox.put(notice)
        self.nudge()
        return is_put


def _made(make: Callable[[], Notice | None]) -> Notice | None:
    try:
        return make()
    except Exception:
        logger.exception("what its webhook is to be told cannot be said")
        return None
