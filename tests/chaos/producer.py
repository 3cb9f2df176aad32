"""The soak's producer: plain Celery and Redis, as a service without our code would be."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from tests.chaos.accounting import Ending
from tests.stack import Workflow

_TERMINAL = {"SUCCESS", "FAILURE", "REVOKED"}
_UNREACHABLE = (OperationalError, redis.RedisError, OSError)
_PAUSE_SECONDS = 0.2

# Where kombu keeps what waits: a list a priority.
_QUEUES = ("comfyui", "comfyui\x06\x163", "comfyui\x06\x166", "comfyui\x06\x169")


class Producer:
    """Sends jobs until the broker takes them, and watches how they end."""

    def __init__(self, url: str, stopping: threading.Event) -> None:
        """Prepare the clients.

        Args:
            url: of broker and result backend.
            stopping: set when nothing is worth another attempt.
        """
        # Without a backend: results are read all at once, not one by one.
        self._celery = Celery(broker=url, set_as_current=False)
        self._redis = redis.Redis.from_url(url, socket_timeout=2, decode_responses=True)
        self._stopping = stopping
        self.accepted: dict[str, float] = {}
        """Jobs whose sending succeeded, and when, Unix time in seconds."""
        self.endings: dict[str, list[Ending]] = defaultdict(list)
        """Each different terminal state that was seen of a job."""
        self.signs: list[tuple[str, str, float, float]] = []
        """Changes of progress: the job, the instance, when not seen yet and when seen."""
        self._progress: dict[str, Any] = {}
        self._looked_at = time.time()

    def send(self, job_id: str, workflow: Workflow) -> None:
        """Enqueue a job, however long that takes; its id may have been sent before."""
        self._insist(
            lambda: self._celery.send_task(
                "comfyui.run_workflow",
                kwargs={"workflow": workflow},
                queue="comfyui",
                task_id=job_id,
            )
        )
        self.accepted.setdefault(job_id, time.time())

    def cancel(self, job_id: str) -> None:
        """Revoke a job."""
        self._insist(lambda: self._celery.control.revoke(job_id, terminate=True))

    def open_jobs(self) -> list[str]:
        """Accepted jobs that have not ended, the oldest first."""
        return [job_id for job_id in list(self.accepted) if job_id not in self.endings]

    def look(self, *, again: bool = False) -> None:
        """See which jobs have ended.

        Args:
            again: also look at those that have, whether they ended once more.
        """
        asked = list(self.accepted) if again else self.open_jobs()
        if not asked:
            return
        begun = time.time()
        try:
            found = self._redis.mget([f"celery-task-meta-{job_id}" for job_id in asked])
        except redis.RedisError:
            return
        now = time.time()
        for job_id, meta in zip(asked, found, strict=True):
            self._see(job_id, json.loads(meta) if meta else {}, now)
        self._looked_at = begun

    def messages(self) -> int:
        """How many messages wait or are not acknowledged."""
        waiting = sum(self._redis.llen(queue) for queue in _QUEUES)
        return waiting + self._redis.hlen("comfyfleet:unacked")

    def dead_letters(self) -> set[str]:
        """The ids of the jobs in the dead letters."""
        return {str(job_id) for job_id in self._redis.hkeys("comfyfleet:dead")}

    def close(self) -> None:
        """Close all connections."""
        self._celery.close()
        self._redis.close()

    def _see(self, job_id: str, meta: Mapping[str, Any], now: float) -> None:
        state, result = meta.get("status"), meta.get("result", {})
        if state == "PROGRESS" and result != self._progress.get(job_id):
            self._progress[job_id] = result
            self.signs.append((job_id, result["instance"], self._looked_at, now))
        if state in _TERMINAL:
            before = self.endings.get(job_id)
            if not before or (before[-1].state, before[-1].result) != (state, result):
                self.endings[job_id].append(Ending(state, result, now))

    def _insist(self, order: Callable[[], object]) -> None:
        while True:
            try:
                order()
                return
            except _UNREACHABLE:
                if self._stopping.wait(_PAUSE_SECONDS):
                    raise
