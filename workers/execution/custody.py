"""Whose a job is, from its claim to the record of its end: the story around its attempts."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    CancelledError,
    InternalError,
    JobCancelledError,
    JobError,
    JobExpiredError,
)
from tasks.result import JobResult
from workers import timeline
from workers.execution.attempts import Attempts, job_of
from workers.execution.control import HandedOn
from workers.execution.endings import Endings
from workers.execution.executor import Executor
from workers.execution.handover import Handover
from workers.execution.job import AttemptFailed, Job
from workers.execution.keeper import Keeper, Lease
from workers.execution.observed import attempt_began, note_attempt, taken
from workers.execution.order import LOOK_SECONDS, NotNow, Order
from workers.execution.placement import Placement
from workers.execution.retries import Retries
from workers.execution.run import Report
from workers.ledger import Cancelled, Claimed, Ended, Held, Ledger, Record, Verdict
from workers.ledger.outcomes import JobFailed, failure_from
from workers.ledger.patience import REDIS_PAUSE
from workers.logs.context import about
from workers.observing import AttemptEnded, JobLeft, JobSuppressed, Observe
from workers.webhooks import Webhooks

logger = logging.getLogger(__name__)

# Seconds by which a job is looked at again after it may be had.
_MARGIN_SECONDS = 0.5


class Custody:
    """Sees to it that a job is had by one worker at a time and ends once. Thread-safe."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        keeper: Keeper,
        executor: Executor,
        takes_jobs: Callable[[], bool],
        placement: Placement,
        attempts: Attempts,
        retries: Retries,
        handover: Handover,
        webhooks: Webhooks,
        endings: Endings,
        observe: Observe,
    ) -> None:
        """Take what it works with; the clients stay their maker's to close.

        Args:
            ledger: what the fleet knows.
            keeper: of this worker's leases.
            executor: runs the attempts.
            takes_jobs: whether this worker is to begin anything at all.
            placement: knows which jobs are for others.
            attempts: goes on where those before have ended.
            retries: decides what follows when they fail.
            handover: leaves jobs to others.
            webhooks: are told of what begins, and of what is refused.
            endings: records how jobs end.
            observe: is told what becomes of jobs.
        """
        self._ledger = ledger
        self._keeper = keeper
        self._executor = executor
        self._takes_jobs = takes_jobs
        self._placement = placement
        self._attempts = attempts
        self._retries = retries
        self._handover = handover
        self._webhooks = webhooks
        self._endings = endings
        self._observe = observe

    def run(self, order: Order, report: Report) -> JobResult:
        """A job from claim to record.

        Raises:
            NotNow: somebody else has it, or it goes on later or elsewhere.
            JobFailed: it has failed, now or before.
            CancelledError: it was cancelled, or is too late.
        """
        with about(job_id=order.job_id):
            return self._run(order, report)

    def _run(self, order: Order, report: Report) -> JobResult:
        here = self._placement.route(order)
        claimed_at = time.monotonic()
        match self._claim(order):
            case Claimed() as claim:
                with self._keeper.holding(order.job_id, claim, claimed_at) as lease:
                    lease.here = here
                    note_attempt(job_of(order, lease, claim.record))
                    if not claim.owner_died:
                        self._pass_on_untold(lease, claim.record)
                    self._observe(taken(order, claim))
                    try:
                        return self._run_claimed(order, claim, lease, report)
                    finally:
                        self._observe(JobLeft(order.job_id))
            case Ended() as ended:
                self._observe(JobSuppressed(order.job_id, "ended", order.redelivered))
                return self._recall(order, ended)
            case Cancelled() as cancelled:
                self._endings.cancel_unclaimed(order, cancelled)
            case Held(seconds):
                pause = min(seconds + _MARGIN_SECONDS, LOOK_SECONDS)
        raise NotNow(pause)

    def knows(self, job_id: str) -> bool:
        """Whether a job of this id has been begun, as far as can be told now."""
        try:
            ledger = self._ledger
            return ledger.ended(job_id) is not None or ledger.record(job_id) is not None
        except JobError:
            return False

    def tell_refusal(self, job_id: str, arguments: Mapping[str, Any], error: JobError) -> None:
        """Tell the webhook of a request that was refused before there was a job."""
        self._webhooks.tell_refusal(job_id, arguments, error)

    def cancel(self, job_id: str, *, running: bool) -> None:
        """Keep a job from being begun again; stop it `running` too, wherever that is."""
        try:
            self._ledger.cancel(job_id, running=running)
        except JobError as error:
            with about(job_id=job_id):
                logger.warning("its cancellation could not be recorded: %s", error)
        if running:
            self._keeper.stop_jobs(JobCancelledError("the job was revoked"), job_id)

    def _pass_on_untold(self, lease: Lease, record: Record) -> None:
        """Leave a job that comes every moment until the worker that it is meant for has it.

        Raises:
            NotNow: there is one.
        """
        try:
            self._placement.pass_on(lease, record)
        except NotNow:
            raise
        except Exception:  # noqa: BLE001  # whatever it was, once it is taken it is asked again
            return

    def _run_claimed(self, order: Order, claim: Claimed, lease: Lease, report: Report) -> JobResult:
        timeline.mark(order.job_id, "claimed")
        record = claim.record
        if claim.owner_died:
            record = self._attempts.after_death(order.job_id, claim, lease)
        lease.bound_until = max(record.route.until, lease.now() + lease.here.bound_seconds)
        job = job_of(order, lease, record)
        began = time.monotonic()
        result: JobResult | None = None
        try:
            if claim.is_new:
                self._refuse_late(order)
                self._webhooks.check(order.request)
            else:
                self._placement.pass_on(lease, record)
            result = self._committed(order, claim, job, lease)
            if result is None and not claim.is_new:
                self._retries.refuse_poison(order, lease, record)
                job, record = self._attempts.next(order, lease, record)
            if result is None:
                result = self._attempt(order, claim, job, lease, report)
        except (NotNow, JobFailed):
            raise
        except CancelledError as error:
            self._endings.cancel(order, lease, error)
            raise
        except HandedOn as reason:
            self._handover.hand_on(lease, job, record, reason, seconds=_since(began))
        except (AttemptFailed, JobError) as failed:
            self._retries.after_failure(order, lease, job, record, failed, seconds=_since(began))
        except Exception as error:
            logger.exception("a fault of comfyfleet's own")
            self._retries.after_fault(order, lease, job, record, error, seconds=_since(began))
        self._endings.succeed(order, lease, result)
        timeline.mark(order.job_id, "recorded")
        return result

    def _attempt(
        self, order: Order, claim: Claimed, job: Job, lease: Lease, report: Report
    ) -> JobResult:
        """The result of an attempt, of whose begin is told, and of its end unless it failed."""
        note_attempt(job)
        self._observe(attempt_began(job, lease.here))
        if claim.is_new:
            self._webhooks.tell_start(job.id, order.request, job.instance)
        try:
            result = self._executor.run(job, lease, report)
        except (CancelledError, HandedOn):
            self._observe(AttemptEnded(job.id, job.number))
            raise
        self._observe(AttemptEnded(job.id, job.number))
        return result

    def _committed(self, order: Order, claim: Claimed, job: Job, lease: Lease) -> JobResult | None:
        """The result of a job that is committed, if that can be."""
        # Who let go of a job knew of no commit; who died may have made one.
        if claim.owner_died:
            return self._executor.committed(job, lease)
        # A message that came before was known to the ledger, which may have forgotten.
        if job.earlier or (claim.is_new and order.redelivered):
            return self._executor.committed_before(job)
        return None

    def _claim(self, order: Order) -> Verdict:
        if not self._takes_jobs():
            return Held(0.0)
        job_id = order.job_id
        try:
            if order.revoked:
                # In case it could not be recorded when it was heard.
                self._ledger.cancel(job_id, running=False)
            record = self._attempts.first(order, self._executor.folder(job_id, order.request))
            verdict = self._ledger.claim(job_id, record, uuid.uuid4().hex)
        except (BrokerUnavailableError, BrokerFullError) as error:
            logger.warning("cannot be claimed: %s", error)
            return Held(REDIS_PAUSE)
        if isinstance(verdict, Held):
            self._observe(JobSuppressed(job_id, "held", order.redelivered))
        return verdict

    def _recall(self, order: Order, ended: Ended) -> JobResult:
        """The end of a job that has ended before."""
        if ended.outcome == "cancelled":
            raise JobCancelledError("the job was revoked")
        if ended.outcome == "failed":
            raise failure_from(ended.detail)
        try:
            result = self._executor.recall(ended.detail, order.request)
        except JobError as error:
            raise NotNow(LOOK_SECONDS) from error
        if result is None:
            raise JobFailed(InternalError(f"the job had ended, but {ended.detail} is gone"), ())
        return result

    @staticmethod
    def _refuse_late(order: Order) -> None:
        """Let a job expire that nobody had before."""
        if order.expired:
            raise JobExpiredError("the job has expired")


def _since(began: float) -> float:
    return time.monotonic() - began
