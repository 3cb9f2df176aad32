"""Whose a job is, what its next attempt does, and how it ends: the story around the attempts."""

import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from tasks import errors
from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    InternalError,
    JobCancelledError,
    JobError,
    PoisonedJobError,
    WorkerDiedError,
)
from tasks.request import JobRequest
from tasks.result import Attempt, JobResult
from tasks.retry import DeadLetter as PutAside
from tasks.retry import Fail, Failure, Retry, Where, after_failure
from workers.comfyui import ComfyUI
from workers.comfyui.model import PromptState
from workers.execution.control import HandedOn, LeaseLost
from workers.execution.executor import Executor, Report
from workers.execution.job import AttemptFailed, Job, Start, prompt_id
from workers.execution.keeper import Keeper, Lease
from workers.execution.place import Place
from workers.ledger import Cancelled, Claimed, Ended, Held, Ledger, Outcome, Record, Route, Verdict
from workers.ledger.dead_letters import DeadLetter, DeadLetters

logger = logging.getLogger(__name__)

# Seconds for which a wish about the place of the next attempt holds, once that is due.
_PREFER_SECONDS = 6.0
_AVOID_SECONDS = 30.0
# Seconds that a worker keeps a job to itself which is meant for another one.
_PASS_SECONDS = 0.5
# Seconds after which a job that somebody else has is looked at again, at the latest.
_LOOK_SECONDS = 10.0
# Seconds between questions to a Redis that does not answer.
_PAUSE = 1.0


class NotNow(Exception):  # noqa: N818  # no error: the job goes on
    """The job's message must come again, after so many seconds."""

    def __init__(self, seconds: float, error: JobError | None = None) -> None:
        """Say when, and which error is the reason if one is."""
        super().__init__(seconds)
        self.seconds = seconds
        self.error = error


class JobFailed(Exception):  # noqa: N818  # an outcome, of which the error is a part
    """The job has failed: its error, and every attempt at it."""

    def __init__(self, error: JobError, attempts: Iterable[Attempt]) -> None:
        """Tell how it ended."""
        super().__init__(error)
        self.error = error
        self.attempts = tuple(attempts)


@dataclass(frozen=True)
class Order:
    """A job as its message brings it.

    Attributes:
        job_id: Celery's task id.
        request: what to do.
        queued_seconds: from enqueue to now.
        priority: as the broker has it.
    """

    job_id: str
    request: JobRequest
    queued_seconds: float = 0.0
    priority: int | None = None


@dataclass(frozen=True)
class Limits:
    """How often a job may fail.

    Attributes:
        max_attempts: attempts that count.
        max_crashes: workers or ComfyUI servers that it may take down.
    """

    max_attempts: int = 3
    max_crashes: int = 3


class Custody:
    """Sees to it that a job is had by one worker at a time and ends once. Thread-safe."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        dead_letters: DeadLetters,
        keeper: Keeper,
        executor: Executor,
        comfyui: ComfyUI,
        server_at: Callable[[str], ComfyUI],
        takes_jobs: Callable[[], bool],
        place: Place,
        client_id: str,
        limits: Limits,
    ) -> None:
        """Take what it works with; the clients stay their maker's to close.

        Args:
            ledger: what the fleet knows.
            dead_letters: where jobs go that take down whoever tries them.
            keeper: of this worker's leases.
            executor: runs the attempts.
            comfyui: this worker's server.
            server_at: makes a client of another server, by its base URL.
            takes_jobs: whether this worker is to begin anything at all.
            place: of that server.
            client_id: of this worker's websocket.
            limits: how often a job may fail.
        """
        self._ledger = ledger
        self._dead_letters = dead_letters
        self._keeper = keeper
        self._executor = executor
        self._comfyui = comfyui
        self._server_at = server_at
        self._takes_jobs = takes_jobs
        self._place = place
        self._client_id = client_id
        self._limits = limits

    def run(self, order: Order, report: Report) -> JobResult:
        """A job from claim to record.

        Raises:
            NotNow: somebody else has it, or it goes on later or elsewhere.
            JobFailed: it has failed, now or before.
            JobCancelledError: it was cancelled.
        """
        claimed_at = time.monotonic()
        match self._claim(order.job_id):
            case Held(seconds):
                raise NotNow(min(seconds + _PASS_SECONDS, _LOOK_SECONDS))
            case Cancelled():
                raise JobCancelledError("the job was revoked")
            case Ended() as ended:
                return self._recall(order, ended)
            case Claimed() as claim:
                with self._keeper.holding(order.job_id, claim.token, claimed_at) as lease:
                    return self._run_claimed(order, claim, lease, report)

    def cancel(self, job_id: str, *, running: bool) -> None:
        """Keep a job from being begun; stop it `running` too, wherever that is."""
        try:
            self._ledger.cancel(job_id, running=running)
        except JobError as error:
            logger.warning("job %s: its cancellation could not be recorded: %s", job_id, error)
        if running:
            self._keeper.stop_jobs(JobCancelledError("the job was revoked"), job_id)

    def clean_up(self, order: Order) -> None:
        """Stop the prompt and remove the files of a job that ended between two attempts.

        Raises:
            JobError: something of it may be left.
        """
        record = self._ledger.unowned(order.job_id)
        if record is None:
            return
        if not record.spent:
            self._prompt_before(order.job_id, record, stop=True)
        self._executor.remove(_job(order, record))

    def _claim(self, job_id: str) -> Verdict:
        if not self._takes_jobs():
            return Held(0.0)
        try:
            return self._ledger.claim(job_id, self._new_record())
        except (BrokerUnavailableError, BrokerFullError) as error:
            logger.warning("job %s: cannot be claimed: %s", job_id, error)
            return Held(_PAUSE)

    def _recall(self, order: Order, ended: Ended) -> JobResult:
        """The end of a job that has ended before."""
        if ended.outcome == "cancelled":
            raise JobCancelledError("the job was revoked")
        if ended.outcome == "failed":
            raise failure_from(ended.detail)
        try:
            result = self._executor.recall(ended.detail, order.request)
        except JobError as error:
            raise NotNow(_LOOK_SECONDS) from error
        if result is None:
            raise JobFailed(InternalError(f"the job had ended, but {ended.detail} is gone"), ())
        return result

    def _run_claimed(self, order: Order, claim: Claimed, lease: Lease, report: Report) -> JobResult:
        record = _with_crash(order.job_id, claim.record) if claim.owner_died else claim.record
        job = _job(order, record)
        began = time.monotonic()
        try:
            self._pass_on(lease, record)
            result = None if claim.is_new else self._executor.committed(job, lease)
            if result is None:
                if record.crashes >= self._limits.max_crashes:
                    self._bury(order, lease, record.attempts)
                if not claim.is_new:
                    job, record = self._next_attempt(order, record)
                    self._save(lease, record)
                logger.info("job %s: attempt %d on %s", job.id, job.number, job.instance)
                result = self._executor.run(job, lease, report)
        except (AttemptFailed, JobError) as failed:
            if isinstance(failed, JobCancelledError):
                self._end(lease, "cancelled")
                raise
            if not isinstance(failed, AttemptFailed):
                failed = AttemptFailed(failed)
            self._after_failure(order, lease, job, record, failed, seconds=_since(began))
        except HandedOn as reason:
            self._hand_on(lease, job, record, reason, seconds=_since(began))
        self._end(lease, "succeeded", result.manifest.key)
        return result

    # The next attempt

    def _new_record(self) -> Record:
        return Record(
            place=self._place.key,
            instance=self._place.url,
            client_id=self._client_id,
            since=time.time(),
        )

    def _pass_on(self, lease: Lease, record: Record) -> None:
        """Leave a job to the worker that it is meant for, if there is one.

        Raises:
            NotNow: there is.
        """
        route = record.route
        if time.time() >= route.until or not _is_meant_for_others(route, self._place.key):
            return
        others = self._ledger.live_places() - {self._place.key}
        if route.prefer in others if route.prefer else others - set(route.avoid):
            self._ledger.release(lease.job_id, lease.token, record)
            raise NotNow(_PASS_SECONDS)

    def _next_attempt(self, order: Order, record: Record) -> tuple[Job, Record]:
        """What is to be done, now that it is known what became of the prompt before."""
        start = Start.SUBMIT if record.spent else self._prompt_before(order.job_id, record)
        if start is Start.SUBMIT:
            changes = {**self._new_record().model_dump(include=_HERE), "prompt": record.number}
            record = record.model_copy(update={**changes, "spent": False})
        else:
            logger.info("job %s: its prompt is there: %s", order.job_id, start.value)
        return _job(order, record, start), record

    def _prompt_before(self, job_id: str, record: Record, *, stop: bool = False) -> Start:
        """What an attempt can do with the prompt of the one before; elsewhere it is stopped."""
        prompt = prompt_id(job_id, record.prompt)
        if record.place == self._place.key:
            if stop:
                self._comfyui.try_cancel(prompt)
            known = self._comfyui.state_of(prompt) is not PromptState.UNKNOWN
            return Start.ADOPT if known else Start.SUBMIT
        if self._place.reaches(record.place, record.instance):
            try:
                with self._server_at(record.instance) as server:
                    if server.state_of(prompt) is PromptState.ENDED:
                        return Start.COLLECT
                    server.cancel(prompt)
                return Start.SUBMIT
            except JobError as error:
                logger.info("job %s: %s; its prompt there is to be stopped", job_id, error)
        self._ledger.order_stop(record.place, prompt)
        return Start.SUBMIT

    # Ends

    def _after_failure(
        self,
        order: Order,
        lease: Lease,
        job: Job,
        record: Record,
        failed: AttemptFailed,
        *,
        seconds: float,
    ) -> NoReturn:
        """Release the job for another attempt, or let it fail.

        Raises:
            NotNow: there will be another attempt.
            JobFailed: there will not.
        """
        error = failed.error
        attempts = (*record.attempts, job.attempt(seconds, error))
        failure = Failure(
            error,
            instance=job.instance,
            elapsed=seconds,
            executing=failed.executing,
            earlier=record.attempts,
            failures=record.failures,
            crashes=record.crashes,
            elsewhere=self._is_elsewhere(),
        )
        decision = after_failure(
            failure,
            max_attempts=self._limits.max_attempts,
            max_crashes=self._limits.max_crashes,
            jitter=random.random(),  # noqa: S311  # no secret
        )
        match decision:
            case Retry() as retry:
                logger.warning(
                    "job %s: attempt %d failed, again in %.1f s: %s",
                    *(lease.job_id, job.number, retry.seconds, error.message),
                )
                if retry.free_memory:
                    self._comfyui.try_free()
                changes = {
                    "attempts": attempts,
                    "failures": record.failures + retry.counts,
                    "crashes": record.crashes + failure.crashed,
                    "spent": retry.spent,
                    "bypass": (failed.node_id,) if retry.bypass_cache and failed.node_id else (),
                    "route": self._route(retry),
                }
                self._release(lease, record.model_copy(update=changes), retry.seconds)
                raise NotNow(retry.seconds, error)
            case PutAside():
                self._bury(order, lease, attempts)
            case Fail():
                self._fail(lease, error, attempts)

    def _route(self, retry: Retry) -> Route:
        due = time.time() + retry.seconds
        match retry.where:
            case Where.HERE:
                return Route(prefer=self._place.key, until=due + _PREFER_SECONDS)
            case Where.ELSEWHERE:
                return Route(avoid=(self._place.key,), until=due + _AVOID_SECONDS)
            case Where.ANYWHERE:
                return Route()

    def _is_elsewhere(self) -> bool:
        try:
            return bool(self._ledger.live_places() - {self._place.key})
        except JobError:
            return False

    def _hand_on(
        self, lease: Lease, job: Job, record: Record, reason: HandedOn, *, seconds: float
    ) -> NoReturn:
        """Leave the job to others.

        Raises:
            NotNow: always.
        """
        logger.info("job %s: handed on: %s", lease.job_id, reason)
        if isinstance(reason, LeaseLost):
            self._stop_unless_adopted(lease, job)
            raise NotNow(_LOOK_SECONDS)
        left = job.attempt(seconds, None).model_copy(
            update={"error": f"{type(reason).__name__}: {reason}"}
        )
        changes = {
            "attempts": (*record.attempts, left),
            "spent": job.start is not Start.COLLECT,
            "route": Route(),
        }
        try:
            self._ledger.release(lease.job_id, lease.token, record.model_copy(update=changes))
        except JobError as error:
            # The lease runs out by itself.
            logger.warning("job %s: could not be let go of: %s", lease.job_id, error)
        raise NotNow(0.0)

    def _stop_unless_adopted(self, lease: Lease, job: Job) -> None:
        try:
            current = self._ledger.record(lease.job_id)
        except JobError:
            return
        mine = (self._place.key, job.prompt)
        if current is None or (current.place, current.prompt) != mine:
            self._comfyui.try_cancel(job.prompt_id)

    def _bury(self, order: Order, lease: Lease, attempts: tuple[Attempt, ...]) -> NoReturn:
        """Put the job aside.

        Raises:
            JobFailed: always.
        """
        letter = DeadLetter(
            job_id=order.job_id,
            request=order.request.model_dump(exclude_defaults=True),
            priority=order.priority,
            attempts=attempts,
            error=attempts[-1].error or "",
            at=time.time(),
        )
        _until_reached(lambda: self._dead_letters.put(letter))
        error = PoisonedJobError(
            f"the job took its worker or its ComfyUI down {self._limits.max_crashes} times and "
            f"lies in the dead letters (comfyfleet dead show {order.job_id}); "
            f"the last error: {letter.error}"
        )
        logger.error("job %s: put aside: %s", order.job_id, letter.error)
        self._fail(lease, error, attempts)

    def _fail(self, lease: Lease, error: JobError, attempts: tuple[Attempt, ...]) -> NoReturn:
        failed = JobFailed(error, attempts)
        self._end(lease, "failed", failure_detail(failed))
        raise failed.with_traceback(None) from None

    def _save(self, lease: Lease, record: Record) -> None:
        if not self._ledger.save(lease.job_id, lease.token, record):
            raise LeaseLost("somebody else has the job")

    def _release(self, lease: Lease, record: Record, pause: float) -> None:
        _until_reached(lambda: self._ledger.release(lease.job_id, lease.token, record, pause))

    def _end(self, lease: Lease, outcome: Outcome, detail: str = "") -> None:
        _until_reached(lambda: self._ledger.end(lease.job_id, lease.token, outcome, detail))


_HERE = {"place", "instance", "client_id", "since"}


def failure_detail(failed: JobFailed) -> str:
    """A failure as the ledger keeps it."""
    attempts = [attempt.model_dump(mode="json") for attempt in failed.attempts]
    error = failed.error
    return json.dumps(
        {"type": type(error).__name__, "message": error.message, "attempts": attempts}
    )


def failure_from(detail: str) -> JobFailed:
    """The failure that was kept in the ledger."""
    kept = json.loads(detail)
    leaf = getattr(errors, kept["type"], InternalError)
    return JobFailed(leaf(kept["message"]), map(Attempt.model_validate, kept["attempts"]))


def _job(order: Order, record: Record, start: Start = Start.SUBMIT) -> Job:
    return Job(
        id=order.job_id,
        request=order.request,
        instance=record.instance,
        client_id=record.client_id,
        number=record.number,
        prompt=record.prompt,
        start=start,
        age=0.0 if start is Start.SUBMIT else max(0.0, time.time() - record.since),
        earlier=record.attempts,
        bypass=record.bypass,
        queued_seconds=order.queued_seconds,
    )


def _with_crash(job_id: str, record: Record) -> Record:
    """The record after the attempt that ended with its worker."""
    died = WorkerDiedError("its worker vanished")
    attempt = Attempt(
        number=record.number,
        instance=record.instance,
        prompt_id=prompt_id(job_id, record.prompt),
        error=f"{type(died).__name__}: {died.message}",
        seconds=round(max(0.0, time.time() - record.since), 3),
    )
    # If the server goes on, or has a worker again, it is the best place to go on.
    route = Route(prefer=record.place, until=time.time() + _PREFER_SECONDS)
    changes = {"attempts": (*record.attempts, attempt), "crashes": record.crashes + 1}
    return record.model_copy(update={**changes, "route": route})


def _since(began: float) -> float:
    return time.monotonic() - began


def _is_meant_for_others(route: Route, here: str) -> bool:
    return here in route.avoid or route.prefer not in (None, here)


def _until_reached(action: Callable[[], object]) -> None:
    """Do what must not be left out, as soon as Redis lets it."""
    warned = False
    while True:
        try:
            action()
        except (BrokerUnavailableError, BrokerFullError) as error:
            if not warned:
                logger.warning("a job's end cannot be recorded yet: %s", error)
            warned = True
            time.sleep(_PAUSE)
        else:
            return
