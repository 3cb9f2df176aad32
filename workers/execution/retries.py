"""What follows an attempt that failed: another one, the dead letters, or the end of the job."""

import random
from typing import NoReturn

from tasks.errors import InternalError, InvalidWorkflowError, JobError, TransientError
from tasks.result import Attempt
from tasks.retry import Fail, Failure, PutAside, Retry, after_failure
from workers.comfyui import ComfyUI
from workers.execution.endings import Endings
from workers.execution.job import AttemptFailed, Job
from workers.execution.keeper import Lease
from workers.execution.order import Limits, NotNow, Order
from workers.execution.placement import Placement
from workers.execution.takeover import Takeover
from workers.ledger import Ledger, Record, Route
from workers.ledger.patience import until_reached
from workers.observing import AttemptEnded, Observe


class Retries:
    """Has jobs tried again, or ends them. Thread-safe."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        placement: Placement,
        takeover: Takeover,
        comfyui: ComfyUI,
        limits: Limits,
        endings: Endings,
        observe: Observe,
    ) -> None:
        """Take what it works with; the clients stay their maker's to close.

        Args:
            ledger: is given back what is tried again.
            placement: knows where that may be.
            takeover: stops what jobs that have failed leave behind.
            comfyui: this worker's server.
            limits: how often a job may fail.
            endings: records how jobs end.
            observe: is told how attempts end.
        """
        self._ledger = ledger
        self._placement = placement
        self._takeover = takeover
        self._comfyui = comfyui
        self._limits = limits
        self._endings = endings
        self._observe = observe

    def after_failure(
        self,
        order: Order,
        lease: Lease,
        job: Job,
        record: Record,
        failed: AttemptFailed | JobError,
        *,
        seconds: float,
    ) -> NoReturn:
        """Release the job for another attempt, or let it fail, after one of so many seconds.

        Raises:
            NotNow: there will be another attempt.
            JobFailed: there will not.
        """
        if isinstance(failed, JobError):
            # What ended before the attempt had begun had done nothing.
            failed = AttemptFailed(failed, waited=True)
        error = failed.error
        if isinstance(error, InvalidWorkflowError):
            error = self._move_or_explain(order, lease, record, error)
        attempts = (*record.attempts, job.attempt(seconds, error))
        failure = Failure(
            error,
            instance=job.instance,
            elapsed=seconds,
            executing=failed.executing,
            waited=failed.waited,
            rendered=failed.rendered,
            earlier=record.attempts,
            failures=record.failures,
            crashes=record.crashes,
            elsewhere=self._placement.is_elsewhere(order),
        )
        decision = after_failure(
            failure,
            max_attempts=self._limits.max_attempts,
            max_crashes=self._limits.max_crashes,
            jitter=random.random(),  # noqa: S311  # no secret
        )
        match decision:
            case Retry() as retry:
                if retry.free_memory:
                    self._comfyui.try_free()
                changes = {
                    "attempts": attempts,
                    "failures": record.failures + retry.counts,
                    "crashes": record.crashes + failure.crashed,
                    "accused": record.accused or failure.crashed,
                    "spent": record.spent or retry.spent,
                    "bypass": _bypassing(record, retry, failed),
                    "route": self._placement.wish(retry.where, lease.now() + retry.seconds),
                }
                self._release(lease, record.model_copy(update=changes), retry.seconds)
                self._observe(AttemptEnded(job.id, job.number, error, again_in=retry.seconds))
                raise NotNow(retry.seconds, error)
            case PutAside():
                self._observe(AttemptEnded(job.id, job.number, error))
                self._put_aside(order, lease, record, attempts)
            case Fail():
                self._observe(AttemptEnded(job.id, job.number, error))
                if isinstance(error, TransientError):
                    # After the others it is over, or never was.
                    self._takeover.stop(lease.job_id, record)
                self._endings.fail(order, lease, error, attempts)

    def after_fault(
        self,
        order: Order,
        lease: Lease,
        job: Job,
        record: Record,
        fault: Exception,
        *,
        seconds: float,
    ) -> NoReturn:
        """Let the job fail for a fault of comfyfleet's own: another attempt would meet it, too.

        Raises:
            JobFailed: always, unless somebody else has it by now.
            NotNow: somebody has.
        """
        self._comfyui.try_cancel(job.prompt_id)
        error = InternalError(
            f"comfyfleet itself failed with {type(fault).__name__}; the worker's log says where"
        )
        self._observe(AttemptEnded(job.id, job.number, error))
        self._endings.fail(order, lease, error, (*record.attempts, job.attempt(seconds, error)))

    def refuse_poison(self, order: Order, lease: Lease, record: Record) -> None:
        """Put a job aside that has taken down too many.

        Raises:
            JobFailed: it has.
            NotNow: it has, and somebody else has it by now.
        """
        if record.crashes < self._limits.max_crashes:
            return
        # What has been rendered in spite of all can do no harm any more.
        if not self._takeover.has_ended(lease.job_id, record):
            self._put_aside(order, lease, record, record.attempts)

    def _move_or_explain(
        self, order: Order, lease: Lease, record: Record, error: InvalidWorkflowError
    ) -> InvalidWorkflowError:
        """The error with what is missing, of a job that no server can run.

        Raises:
            NotNow: another one can, and that is no attempt.
        """
        try:
            return self._placement.after_refusal(order, error)
        except NotNow as later:
            changes = {"route": Route(), "spent": True}
            self._release(lease, record.model_copy(update=changes), later.seconds)
            self._observe(AttemptEnded(order.job_id, record.number))
            raise

    def _put_aside(
        self, order: Order, lease: Lease, record: Record, attempts: tuple[Attempt, ...]
    ) -> NoReturn:
        self._takeover.stop(lease.job_id, record)
        self._endings.put_aside(order, lease, attempts, self._limits.max_crashes)

    def _release(self, lease: Lease, record: Record, pause: float) -> None:
        until_reached(lambda: self._ledger.release(lease.job_id, lease.token, record, pause))


def _bypassing(record: Record, retry: Retry, failed: AttemptFailed) -> tuple[str, ...]:
    # Where one file is gone others may be, too.
    missing = failed.nodes if retry.bypass_cache else ()
    return (*record.bypass, *missing)
