"""Questions whose answers may never come, asked as rarely as that will do."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from tasks.errors import JobError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class NoAnswerError(Exception):
    """There is no answer that counts; the message says why."""


class Asking(Generic[T]):
    """Asks in a thread of its own, and only when somebody wants to know. Thread-safe."""

    def __init__(
        self,
        ask: Callable[[], T],
        *,
        every: float,
        wait: float = 1.0,
        patience: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            ask: the question; may hang.
            every: seconds for which an answer is good enough.
            wait: seconds that whoever wants to know is held up.
            patience: seconds for which an answer counts while the next one does not come.
            clock: seconds.
        """
        self._ask = ask
        self._every = every
        self._wait = wait
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._answered = threading.Event()
        # Since when the question is under way that has no answer yet.
        self._asked_at: float | None = None
        self._known_at = float("-inf")
        self._known: T | NoAnswerError = NoAnswerError("not asked yet")

    def latest(self) -> T:
        """The answer, not older than it may be.

        Raises:
            NoAnswerError: there is none.
        """
        with self._lock:
            now = self._clock()
            if self._asked_at is None and now - self._known_at >= self._every:
                self._asked_at = now
                self._answered.clear()
                threading.Thread(target=self._run, name="asking", daemon=True).start()
            # One that has hung for so long holds up nobody any more.
            hangs = self._asked_at is not None and now - self._asked_at >= self._wait
        if not hangs:
            self._answered.wait(self._wait)
        with self._lock:
            now, known, asked_at = self._clock(), self._known, self._asked_at
            age = now - self._known_at
        if asked_at is not None and age >= self._patience:
            raise NoAnswerError(f"no answer for {now - asked_at:.0f} s")
        if isinstance(known, NoAnswerError):
            raise known
        return known

    def _run(self) -> None:
        known: T | NoAnswerError
        try:
            known = self._ask()
        except JobError as error:
            known = NoAnswerError(error.message)
        except Exception as error:
            logger.exception("a look at the worker's surroundings failed")
            known = NoAnswerError(type(error).__name__)
        with self._lock:
            self._known, self._known_at, self._asked_at = known, self._clock(), None
            self._answered.set()
