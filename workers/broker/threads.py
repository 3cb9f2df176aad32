"""The thread pool, whose threads never end a job without a word."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.thread import TaskPool as CeleryTaskPool
from celery.exceptions import Reject

from tasks.app import TASK_NAME
from workers.logs.context import about

logger = logging.getLogger(__name__)

# Seconds before a job goes back that ended outside of the task's body: whatever was broken then,
# such as the result backend, may not be broken at once again.
_PAUSE = 2.0


class TaskPool(CeleryTaskPool):  # type: ignore[misc]  # celery has no types for it
    """Celery's thread pool, which gives a job back that raised outside of the task's body.

    Celery's own leaves such an exception in a future that nobody reads: the job is neither
    acknowledged nor rejected, and its slot is gone for good.
    """

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Any:
        """Celery's hook: run a job in a thread, which is known to work for it."""
        job = _job_of(args)

        @about(**job)
        def settled(*args: Any, **kwargs: Any) -> Any:
            try:
                return target(*args, **kwargs)
            except Exception as error:
                logger.exception("a job ended outside of its task and goes back to the queue")
                time.sleep(_PAUSE)
                return _given_back(error)

        @about(**job)
        def told(result: Any, *args: Any, **kwargs: Any) -> None:
            if callback is None:
                return
            try:
                callback(result, *args, **kwargs)
            except Exception as error:
                logger.exception("how a job ended could not be told; it goes back to the queue")
                time.sleep(_PAUSE)
                callback(_given_back(error), *args, **kwargs)

        return super().on_apply(settled, args, kwargs, told, **options)


def _job_of(args: Sequence[Any] | None) -> dict[str, Any]:
    # Of what Celery runs in a thread the first two are the task's name and id.
    match args:
        case [name, str(job_id), *_] if name == TASK_NAME:
            return {"job_id": job_id}
    return {}


def _given_back(error: Exception) -> tuple[int, Any, float]:
    # What Celery's tracer returns for a task that raised Reject.
    try:
        raise Reject(error, requeue=True) from error
    except Reject:
        return 1, ExceptionInfo(), 0.0
