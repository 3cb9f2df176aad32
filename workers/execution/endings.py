"""How jobs end: recorded, by the same step told to their webhooks, and then to all who watch."""

import logging
import time
from typing import NoReturn

from tasks.errors import CancelledError, JobCancelledError, JobError, PoisonedJobError
from tasks.result import Attempt, JobResult
from workers.execution.attempts import job_of
from workers.execution.keeper import Lease
from workers.execution.observed import note_attempt
from workers.execution.order import LOOK_SECONDS, NotNow, Order
from workers.execution.removal import Removal
from workers.execution.takeover import Takeover
from workers.ledger import Cancelled, Ledger, Outcome
from workers.ledger.dead_letters import DeadLetter
from workers.ledger.outcomes import JobFailed, failure_detail
from workers.ledger.patience import until_reached
from workers.observing import JobEnded, Observe
from workers.webhooks import Webhooks

logger = logging.getLogger(__name__)


class Endings:
    """Ends jobs, each once. Thread-safe; waits for a Redis that does not answer."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        takeover: Takeover,
        removal: Removal,
        webhooks: Webhooks,
        observe: Observe,
    ) -> None:
        """Take what it works with.

        Args:
            ledger: records the ends.
            takeover: stops the prompts of jobs that were cancelled while nobody had them.
            removal: takes back what these have stored.
            webhooks: are told of the ends.
            observe: is told as well.
        """
        self._ledger = ledger
        self._takeover = takeover
        self._removal = removal
        self._webhooks = webhooks
        self._observe = observe

    def succeed(self, order: Order, lease: Lease, result: JobResult) -> None:
        """End a job whose result is committed, unless somebody else has ended it."""
        self._end(order, lease, "succeeded", result.manifest.key, result=result)

    def cancel(self, order: Order, lease: Lease, error: CancelledError) -> None:
        """End a job as cancelled, unless somebody else has it by now."""
        self._end(order, lease, "cancelled", error=error)

    def cancel_unclaimed(self, order: Order, cancelled: Cancelled) -> NoReturn:
        """End a job that was cancelled while nobody had it, with what it has left behind.

        Raises:
            JobCancelledError: always.
        """
        record, lease = cancelled.record, Lease(order.job_id, cancelled.token, 0.0)
        if record is not None:
            job = job_of(order, lease, record)
            note_attempt(job)
            self._takeover.stop(order.job_id, record)
            self._removal.remove(job)
        error = JobCancelledError("the job was revoked")
        self.cancel(order, lease, error)
        raise error

    def fail(
        self,
        order: Order,
        lease: Lease,
        error: JobError,
        attempts: tuple[Attempt, ...],
        letter: DeadLetter | None = None,
    ) -> NoReturn:
        """End a job as failed.

        Raises:
            JobFailed: always, unless somebody else has it by now.
            NotNow: somebody has.
        """
        failed = JobFailed(error, attempts)
        detail = failure_detail(failed)
        if not self._end(order, lease, "failed", detail, letter, error=error, attempts=attempts):
            # Its end is the other's to tell, and so is its message to acknowledge.
            raise NotNow(LOOK_SECONDS)
        raise failed.with_traceback(None) from None

    def put_aside(
        self, order: Order, lease: Lease, attempts: tuple[Attempt, ...], crashes: int
    ) -> NoReturn:
        """End a job that has taken down too many, and keep it among the dead letters.

        Raises:
            JobFailed: always, unless somebody else has it by now.
            NotNow: somebody has.
        """
        letter = DeadLetter(
            job_id=order.job_id,
            request=order.request.model_dump(exclude_defaults=True),
            priority=order.priority,
            is_signed=order.is_signed,
            attempts=attempts,
            error=attempts[-1].error or "",
            at=time.time(),
        )
        error = PoisonedJobError(
            f"the job took its worker or its ComfyUI down {crashes} times and "
            f"lies in the dead letters (comfyfleet dead show {order.job_id}); "
            f"the last error: {letter.error}"
        )
        logger.error("put aside: %s", letter.error)
        self.fail(order, lease, error, attempts, letter)

    def _end(
        self,
        order: Order,
        lease: Lease,
        outcome: Outcome,
        detail: str = "",
        letter: DeadLetter | None = None,
        *,
        error: JobError | None = None,
        attempts: tuple[Attempt, ...] = (),
        result: JobResult | None = None,
    ) -> bool:
        """Record how a job ended, and what its webhook is told; whether it was still ours."""
        job_id, token = lease.job_id, lease.token
        notice = self._webhooks.of_end(
            *(job_id, order.request, outcome), error=error, attempts=attempts, result=result
        )
        if not until_reached(
            lambda: self._ledger.end(job_id, token, outcome, detail, letter, notice=notice)
        ):
            return False
        if notice is not None:
            self._webhooks.nudge()
        self._observe(JobEnded(job_id, outcome, error, result))
        return True
