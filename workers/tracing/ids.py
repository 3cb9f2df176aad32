"""Ids of traces that nobody has begun before the worker: the same for all of a job's attempts."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator


class JobTraceIds(RandomIdGenerator):
    """Random ids, but for traces that begin with a job: those follow from its id. Thread-safe."""

    def __init__(self) -> None:
        self._job = threading.local()

    @contextmanager
    def of(self, job_id: str) -> Iterator[None]:
        """Have a trace that begins in the block be this job's, whichever worker asks."""
        # Not the id itself: samplers count on all bits being equally likely.
        digest = hashlib.sha256(job_id.encode("utf-8", "replace")).digest()
        self._job.trace_id = int.from_bytes(digest[:16]) or 1
        try:
            yield
        finally:
            del self._job.trace_id

    def generate_trace_id(self) -> int:
        """The SDK's hook for an id of 128 bits."""
        known: int | None = getattr(self._job, "trace_id", None)
        return known if known is not None else super().generate_trace_id()
