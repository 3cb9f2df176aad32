"""Celery's Redis result backend, which keeps at it and keeps what a failure's attempts were."""

import logging
from collections.abc import Callable
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from celery.backends.redis import SentinelBackend as CelerySentinelBackend
from celery.exceptions import BackendStoreError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from workers.ledger.connection import MasterPool, master_pool

logger = logging.getLogger(__name__)

PROGRESS = "PROGRESS"

# How long (milliseconds) a replica has to confirm a result. Sentinels take about a second from a
# replica's promotion until they call it the master.
_REPLICA_MS = 2000

# States after which only a success can come: of a job that was delivered twice.
_ENDS = (states.SUCCESS, states.FAILURE)

# Celery asks for what is stored, and stores in a second step: in between somebody else may.
# KEYS: the result's. ARGV: result, seconds to keep it or 0, the states that must not be replaced.
_STORE = """
local stored = redis.call('GET', KEYS[1])
if stored then
  local readable, meta = pcall(cjson.decode, stored)
  local status = readable and type(meta) == 'table' and meta['status']
  for i = 3, #ARGV do
    if status == ARGV[i] then return 0 end
  end
end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"""


class Backend(RedisBackend):  # type: ignore[misc]  # celery has no types for it
    """The result backend of workers."""

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Celery's hook: store a result, however long that takes; but progress now or never."""
        if state == PROGRESS:
            return self._store_result(task_id, result, state, *args, **kwargs)
        return super().store_result(task_id, result, state, *args, **kwargs)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        value = self.encode({**meta, "task_id": task_id})
        if len(value) > self._MAX_STR_VALUE_SIZE:
            raise BackendStoreError(
                "the result is too large for Redis", state=state, task_id=task_id
            )
        # A worker may not know yet that the job was taken from it and has ended; and a revocation
        # is recorded by whoever hears of it, and by who stops the job.
        final = (states.SUCCESS,) if state in _ENDS else tuple(states.READY_STATES)
        expires = self.failure_expires if state == states.FAILURE else self.expires
        arguments = (value, int(expires or 0), *final)
        key = self.get_key_for_task(task_id)
        self.ensure(self._evaluator(state), (_STORE, 1, key, *arguments))
        return result

    def _evaluator(self, state: str) -> Callable[..., Any]:  # noqa: ARG002  # of the one below
        evaluate: Callable[..., Any] = self.client.eval
        return evaluate

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


class SentinelBackend(Backend, CelerySentinelBackend):  # type: ignore[misc]  # no types
    """The same on whichever server the sentinels call the master.

    A job's end is stored when a replica has it, too: its message is acknowledged next, perhaps at a
    master that was that replica.
    """

    def _evaluator(self, state: str) -> Callable[..., Any]:
        return self._evaluate if state in states.READY_STATES else super()._evaluator(state)

    def _evaluate(self, *arguments: Any) -> None:
        """Evaluate a script that stores a job's end.

        Raises:
            ConnectionError: it was stored at a former master; celery stores it again.
        """
        pool = self.client.connection_pool
        with self.client.pipeline(transaction=False) as pipe:
            pipe.eval(*arguments)
            pipe.wait(1, _REPLICA_MS)
            _, replicas = pipe.execute()
        master = pool.master_address
        if not replicas and pool.get_master_address() != master:
            raise RedisConnectionError("the master has changed")

    def _get_pool(self, **options: Any) -> MasterPool:
        told = self._transport_options
        return master_pool(
            [(one["host"], one["port"]) for one in options.pop("hosts")],
            told["master_name"],
            sentinel_options=told["sentinel_kwargs"],
            options=options,
        )
