"""The handle of a batch: how far it is, its results in order, an end to all of it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.states import FAILURE, PENDING, READY_STATES, REVOKED, SUCCESS
from vine import promise

from tasks.app import app
from tasks.errors import InvalidRequestError, JobCancelledError
from tasks.request import shown
from tasks.result import JobResult

LOOK_SECONDS = 0.5

# Results in one answer of the result backend: each may have kilobytes.
_AT_ONCE = 500
_REVOKED_AT_ONCE = 5000
# Seconds for which a result backend may be away while a batch is waited for.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        total: how many jobs it has.
        states: how many of them are in each of Celery's states; `PENDING` are those that wait.
        value: share of the whole that is done, from 0 to 1.
    """

    total: int
    states: Mapping[str, int]
    value: float

    @property
    def ended(self) -> int:
        """How many jobs have ended, well or not."""
        return sum(self.states.get(state, 0) for state in READY_STATES)

    @property
    def failed(self) -> int:
        """How many jobs have failed or were cancelled."""
        return self.states.get(FAILURE, 0) + self.states.get(REVOKED, 0)


class Batch:
    """Jobs that were enqueued together.

    Attributes:
        id: of the batch, which is a Celery group.
        job_ids: in the order of the rows.
    """

    def __init__(self, batch_id: str, job_ids: Sequence[str], celery: Celery = app) -> None:
        self.id = batch_id
        self.job_ids = tuple(job_ids)
        self._celery = celery
        # What the backend says of jobs that have ended: that never changes.
        self._ended: dict[str, Mapping[str, Any]] = {}

    @classmethod
    def restore(cls, batch_id: str, celery: Celery = app) -> "Batch":
        """The handle of a batch that was enqueued elsewhere.

        Also of a Celery group of another producer that has saved it.

        Raises:
            InvalidRequestError: the result backend does not know it, or not any more.
        """
        job_ids = _saved(batch_id, celery)
        if job_ids is None:
            raise InvalidRequestError(f"batch {shown(batch_id)} is not known, or is forgotten")
        return cls(batch_id, job_ids, celery)

    def save(self) -> None:
        """Have the result backend know it by its id, as Celery's `GroupResult` does."""
        jobs = [self._celery.AsyncResult(job_id) for job_id in self.job_ids]
        # With a barrier of its own it does not begin to listen for each of the jobs.
        self._celery.GroupResult(self.id, jobs, ready_barrier=promise()).save()

    def progress(self) -> BatchProgress:
        """How far it is now; jobs that are known to have ended are not asked for again."""
        states = Counter[str]()
        value = 0.0
        for job_id, meta in self._look(self._going_on):
            if meta["status"] in READY_STATES:
                self._ended[job_id] = meta
                continue
            states[meta["status"]] += 1
            value += _share(meta["result"])
        states.update(meta["status"] for meta in self._ended.values())
        total = len(self.job_ids)
        return BatchProgress(total, dict(states), (value + len(self._ended)) / max(1, total))

    def wait(
        self,
        on_progress: Callable[[BatchProgress], object] | None = None,
        timeout: float | None = None,
    ) -> BatchProgress:
        """Wait until every job has ended, well or not.

        Args:
            on_progress: is told how far it is, now and then.
            timeout: seconds to wait; default: as long as it takes.

        Raises:
            celery.exceptions.TimeoutError: not all have ended by then.
        """
        for progress in self._follow(timeout):
            if on_progress is not None:
                on_progress(progress)
        return progress

    @overload
    def results(
        self, timeout: float | None = None, *, raise_on_error: Literal[True] = True
    ) -> list[JobResult]: ...

    @overload
    def results(
        self, timeout: float | None = None, *, raise_on_error: Literal[False]
    ) -> list[JobResult | Exception]: ...

    def results(
        self, timeout: float | None = None, *, raise_on_error: bool = True
    ) -> Sequence[JobResult | Exception]:
        """The results of all jobs, in the order of the rows.

        Args:
            timeout: seconds to wait for them; default: as long as it takes.
            raise_on_error: raise what a job failed with as soon as that is seen; else it stands in
                the place of its result.

        Raises:
            JobError: a job failed; JobCancelledError if it was revoked.
            celery.exceptions.TimeoutError: not all have ended by then.
        """
        for progress in self._follow(timeout):
            if raise_on_error and progress.failed:
                raise next(self._errors())
        return [_outcome(self._ended[job_id]) for job_id in self.job_ids]

    def cancel(self) -> None:
        """Cancel what has not ended: what waits is not begun, what executes is stopped.

        As with any `revoke`, workers that run now have to hear of it.
        """
        going_on = self._going_on
        # One message for nearly any batch; workers note each job before they read the next.
        for start in range(0, len(going_on), _REVOKED_AT_ONCE):
            some = going_on[start : start + _REVOKED_AT_ONCE]
            self._celery.control.revoke(some, terminate=True)

    @property
    def _going_on(self) -> list[str]:
        """The jobs that are not known to have ended."""
        return [job_id for job_id in self.job_ids if job_id not in self._ended]

    def _follow(self, timeout: float | None) -> Iterator[BatchProgress]:
        """How far it is, again and again, the last time when every job has ended."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        heard_at = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                progress = self.progress()
            except Exception as error:
                away = began - heard_at
                if away > _PATIENCE_SECONDS or not self._celery.backend.exception_safe_to_retry(
                    error
                ):
                    raise
            else:
                heard_at = time.monotonic()
                yield progress
                if progress.ended == progress.total:
                    return
            if time.monotonic() >= deadline:
                raise CeleryTimeoutError(f"batch {self.id} has not ended within {timeout} s")
            # Of a large batch it takes long to look.
            pause = max(LOOK_SECONDS, 5 * (time.monotonic() - began))
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))

    def _errors(self) -> Iterator[Exception]:
        """What jobs failed with, in the order of the rows."""
        for job_id in self.job_ids:
            outcome = _outcome(self._ended[job_id]) if job_id in self._ended else None
            if isinstance(outcome, Exception):
                yield outcome

    def _look(self, job_ids: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What the result backend says of each job, in as few requests as it can."""
        backend = self._celery.backend
        if not isinstance(backend, BaseKeyValueStoreBackend):
            yield from ((job_id, backend.get_task_meta(job_id)) for job_id in job_ids)
            return
        for start in range(0, len(job_ids), _AT_ONCE):
            some = {backend.get_key_for_task(one): one for one in job_ids[start : start + _AT_ONCE]}
            found = backend.mget(list(some))
            # Some clients answer by key, others in the order of the keys.
            payloads = found if isinstance(found, Mapping) else dict(zip(some, found, strict=True))
            for key, job_id in some.items():
                payload = payloads.get(key)
                meta = backend.decode_result(payload) if payload else None
                yield job_id, meta or {"status": PENDING, "result": None}


def _saved(batch_id: str, celery: Celery) -> list[str] | None:
    """The jobs of a saved group."""
    backend = celery.backend
    if not isinstance(backend, BaseKeyValueStoreBackend):
        group = celery.GroupResult.restore(batch_id)
        return None if group is None else [job.id for job in group.results]
    # Celery's own reader begins to listen for each of the jobs, which may be thousands.
    payload = backend.get(backend.get_key_for_group(batch_id))
    if not payload:
        return None
    _, members = backend.decode(payload)["result"]
    return [job_id for (job_id, *_), _ in members]


def _share(content: object) -> float:
    """How much of a job is done that has not ended, as far as it says so."""
    match content:
        case {"value": int() | float() as value} if 0 <= value <= 1:
            return float(value)
    return 0.0


def _outcome(meta: Mapping[str, Any]) -> JobResult | Exception:
    if meta["status"] == SUCCESS:
        # A later version may have written more than this one knows.
        return JobResult.model_validate(meta["result"])
    if meta["status"] == REVOKED:
        return JobCancelledError("the job was revoked")
    error = meta["result"]
    return error if isinstance(error, Exception) else RuntimeError(str(error))
