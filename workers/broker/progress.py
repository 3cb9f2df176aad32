"""Progress on its way to the result backend, from a thread of its own: no job waits for it."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from tasks.result import Progress

logger = logging.getLogger(__name__)

# Seconds between two writes of a job's progress.
INTERVAL = 0.5

# Seconds that the end of the thread is waited for.
_JOIN_SECONDS = 1.0

# Seconds that a write which is under way is waited for.
_WRITE_SECONDS = 1.0

Write = Callable[[str, dict[str, Any]], object]


class ProgressWriter:
    """Writes of each job what it told last, now and then. Thread-safe."""

    def __init__(self, write: Write) -> None:
        """Prepare; `start` begins to write.

        Args:
            write: stores a job's progress, by its id, as long as the job has not ended.
        """
        self._write = write
        self._changed = threading.Condition()
        self._stopping = False
        # What is still to be written of each job, and when that may be (monotonic clock).
        self._told: dict[str, Progress] = {}
        self._next: dict[str, float] = {}
        self._written: dict[str, Progress] = {}
        self._writing: str | None = None
        self._reached = True
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write nothing more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def tell(self, job_id: str, progress: Progress) -> None:
        """Have this written soon, in the place of what is not yet written."""
        with self._changed:
            if self._written.get(job_id) == progress:
                self._told.pop(job_id, None)
                return
            self._told[job_id] = progress
            self._changed.notify_all()

    def forget(self, job_id: str) -> None:
        """Write nothing more of a job: what is being written is waited for, for a second."""
        with self._changed:
            self._told.pop(job_id, None)
            self._next.pop(job_id, None)
            self._written.pop(job_id, None)
            self._changed.wait_for(lambda: self._writing != job_id, _WRITE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                job_id = self._due()
                while job_id is None and not self._stopping:
                    self._changed.wait(self._seconds())
                    job_id = self._due()
                if job_id is None or self._stopping:
                    return
                progress = self._told.pop(job_id)
                self._next[job_id] = time.monotonic() + INTERVAL
                self._written[job_id] = progress
                self._writing = job_id
            is_written = self._try_write(job_id, progress)
            with self._changed:
                if not is_written:
                    self._written.pop(job_id, None)
                self._writing = None
                self._changed.notify_all()

    def _due(self) -> str | None:
        now = time.monotonic()
        return next((job_id for job_id in self._told if self._next.get(job_id, 0.0) <= now), None)

    def _seconds(self) -> float | None:
        moments = [self._next.get(job_id, 0.0) for job_id in self._told]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _try_write(self, job_id: str, progress: Progress) -> bool:
        try:
            self._write(job_id, progress.model_dump(mode="json"))
            self._reached = True
        except Exception as error:  # noqa: BLE001
            # Nobody may lose a job because nobody could be told how far it was.
            if self._reached:
                logger.warning("progress cannot be written: %s", error)
            self._reached = False
        return self._reached
