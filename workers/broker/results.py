"""Celery's Redis result backend, which keeps at it and keeps what a failure's attempts were."""

import logging
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from redis.exceptions import OutOfMemoryError, ResponseError

logger = logging.getLogger(__name__)

PROGRESS = "PROGRESS"


class Backend(RedisBackend):  # type: ignore[misc]  # celery has no types for it
    """The result backend of workers."""

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Celery's hook: store a result, however long that takes; but progress now or never."""
        if state == PROGRESS:
            return self._store_result(task_id, result, state, *args, **kwargs)
        return super().store_result(task_id, result, state, *args, **kwargs)

    def _store_result(
        self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any
    ) -> Any:
        # A worker may not know yet that the job was taken from it and has ended; and a revocation
        # is recorded by whoever hears of it, and by who stops the job.
        if state in (PROGRESS, states.RETRY, states.REVOKED):
            known = self._get_task_meta_for(task_id)
            if known["status"] in states.READY_STATES:
                return result
        return super()._store_result(task_id, result, state, *args, **kwargs)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whether storing a result is tried again: also while Redis is full, or fails over."""
        if isinstance(exc, OutOfMemoryError):
            logger.error(
                "a result cannot be stored: Redis is out of memory (maxmemory is reached and its "
                "policy is noeviction); trying again"
            )
            return True
        # Whatever else the server refuses, it may take later; nobody renders again for that.
        return isinstance(exc, ResponseError) or super().exception_safe_to_retry(exc)

    def prepare_exception(self, exc: Any, serializer: Any = None) -> Any:
        """Celery's hook: an error as it is stored, with the attempts at the job."""
        prepared = super().prepare_exception(exc, serializer)
        attempts = getattr(exc, "attempts", ())
        return {**prepared, "attempts": list(attempts)} if attempts else prepared

    def _get_result_meta(self, result: Any, *args: Any, **kwargs: Any) -> Any:
        # Clients turn `result` into an exception; what stands beside it they keep as it is.
        meta = super()._get_result_meta(result, *args, **kwargs)
        if isinstance(result, dict) and "exc_type" in result and "attempts" in result:
            meta["attempts"] = result["attempts"]
        return meta
