"""How long a server executes, and how long it could."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class GpuSeconds(NamedTuple):
    """Seconds, all together."""

    busy: float
    idle: float


class GpuTime:
    """Adds up the time by what is seen whenever something changes. Thread-safe."""

    def __init__(
        self,
        executes: Callable[[], bool],
        takes_jobs: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            executes: whether the server executes a prompt now.
            takes_jobs: whether the worker would take one.
            clock: seconds.
        """
        self._executes = executes
        self._takes_jobs = takes_jobs
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._was_busy = self._was_idle = False
        self._busy = self._idle = 0.0

    def look(self) -> GpuSeconds:
        """Note that something may have changed; how much it is up to now."""
        with self._lock:
            now = self._clock()
            seconds, self._since = now - self._since, now
            self._busy += seconds * self._was_busy
            self._idle += seconds * self._was_idle
            self._was_busy = self._executes()
            self._was_idle = not self._was_busy and self._takes_jobs()
            return GpuSeconds(self._busy, self._idle)
