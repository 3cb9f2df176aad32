"""Tells the fleet of this worker and of what happens to its jobs, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from workers.ledger import Ledger
from workers.ledger.fleet import TELL_SECONDS
from workers.lifecycle.presence import Presence
from workers.observing.stories import StoryLines

logger = logging.getLogger(__name__)

# Seconds between two writes of lines, each of which takes all that has come meanwhile.
_STORY_SECONDS = 1.0
# Lines in one write: it is one step for the server.
_AT_ONCE = 500
# Seconds that the end of the thread is waited for.
_JOIN_SECONDS = 2.0


class Telling:
    """Writes soon or never: no job waits, and what cannot be told is lost."""

    def __init__(self, ledger: Ledger, presence: Presence, lines: StoryLines) -> None:
        """Prepare; `start` begins to tell.

        Args:
            ledger: of its own, closed with it: no job shares a connection with it.
            presence: knows the worker's status.
            lines: of the stories of its jobs.
        """
        self._ledger = ledger
        self._presence = presence
        self._lines = lines
        self._told_at = float("-inf")
        self._ending = threading.Event()
        self._reached = True
        self._thread = threading.Thread(target=self._run, name="telling", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell what is left; the worker is struck off."""
        self._ending.set()
        self._lines.come.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._ledger.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            if time.monotonic() - self._told_at >= TELL_SECONDS:
                self._told_at = time.monotonic()
                self._try(lambda: self._ledger.fleet.tell(self._presence.status()))
            self._lines.come.wait(self._told_at + TELL_SECONDS - time.monotonic())
            if self._lines.come.is_set():
                self._ending.wait(_STORY_SECONDS)
                self._write_lines()
        self._write_lines()
        self._try(lambda: self._ledger.fleet.forget(self._presence.id))

    def _write_lines(self) -> None:
        more = True
        while more:
            lines = self._lines.take(_AT_ONCE)
            if lines:
                self._try(partial(self._ledger.stories.tell, lines))
            # What comes meanwhile waits for the next time.
            more = len(lines) == _AT_ONCE

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
            self._reached = True
        except Exception as error:  # noqa: BLE001
            # To know what happens is worth less than that it happens.
            if self._reached:
                logger.warning("the fleet cannot be told what happens here: %s", error)
            self._reached = False
