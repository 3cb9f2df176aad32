"""How others end a job that runs: by a reason, which reaches it wherever it waits."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class HandedOn(Exception):  # noqa: N818  # no error: the job goes on, only not here
    """The job is not ours any more, or shall not be; it ends somewhere else."""


class LeaseLost(HandedOn):
    """Somebody else has the job."""


class WorkerLeaving(HandedOn):
    """This worker was asked to end."""


class ServerLost(HandedOn):
    """Another worker drives this worker's server: it is that one's to tell what runs there."""


class ServerHung(HandedOn):
    """Another prompt hangs on the server that has this job's."""


class Spared(HandedOn):
    """It had not begun here, and a server elsewhere has nothing to do."""


class Control:
    """One running job's ear for reasons to end. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._reason: Exception | None = None
        self._sealed = False
        self._wake: Callable[[], None] = _nothing
        self.wanted_elsewhere = False
        """Whether the job is to be handed on if it has not begun to execute."""

    def stop(self, reason: Exception) -> bool:
        """End the job with this reason; whether it does: the first wins, none once it is sealed."""
        with self._lock:
            if self._sealed or self._reason is not None:
                return False
            self._reason = reason
            self._stopped.set()
            wake = self._wake
        wake()
        return True

    def want_elsewhere(self) -> None:
        """Have the job handed on unless it has begun to execute."""
        with self._lock:
            self.wanted_elsewhere = True
            wake = self._wake
        wake()

    def check(self) -> None:
        """Raise the reason to end, if there is one."""
        if self._reason is not None:
            raise self._reason

    def sleep(self, seconds: float) -> None:
        """Wait; raise the reason to end as soon as there is one."""
        self._stopped.wait(seconds)
        self.check()

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Let nothing end the job while it is committed, nor after. Raises as `check`."""
        with self._lock:
            self.check()
            self._sealed = True
        try:
            yield
        except BaseException:
            with self._lock:
                self._sealed = False
            raise

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have a waiting thread woken by the call when there is a reason to end."""
        with self._lock:
            self._wake = wake
        # A reason from before has woken nobody.
        if self._reason is not None:
            wake()
        try:
            yield
        finally:
            with self._lock:
                self._wake = _nothing


def unshared(_control: Control) -> None:
    """Confirm of a server for which nobody has a lease that this worker drives it."""


def _nothing() -> None:
    pass
