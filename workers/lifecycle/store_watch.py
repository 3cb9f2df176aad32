"""Watches the bucket: no jobs are taken while it is not there, or not ours to write."""

import logging
import threading
from collections.abc import Callable

from tasks.errors import JobError, StorageDeniedError
from workers.checks.finding import Judgement, Status

logger = logging.getLogger(__name__)

# Seconds between two looks at a store that denies or does not answer, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 30.0

# Seconds that the end of the thread is waited for.
_STOP_SECONDS = 1.0


class StoreWatch:
    """Looks at the start, and whenever somebody was denied, until all is well. Thread-safe.

    A store that is away is waited for with what was rendered; one that denies is not to have more
    rendered for it. Closed while jobs may be taken, as a circuit is: also before the first answer.
    """

    def __init__(
        self, look: Callable[[], Judgement], judge: Callable[[JobError], Judgement]
    ) -> None:
        """Prepare; `start` begins to look.

        Args:
            look: tries to write, and says what is to be known beside; raises StorageDeniedError,
                StorageUnavailableError.
            judge: says what these mean.
        """
        self._look = look
        self._judge = judge
        self._listeners: list[Callable[[bool], None]] = []
        self._suspected = threading.Event()
        self._begun = threading.Event()
        self._stopped = threading.Event()
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)
        self.closed = True
        """Whether jobs may be taken, as far as the store is concerned."""

    def subscribe(self, on_change: Callable[[bool], None]) -> None:
        """Have it called from the watch's thread with `closed` whenever that has changed."""
        self._listeners.append(on_change)

    @property
    def reason(self) -> str:
        """What is wrong with the store; empty if it is well."""
        return self._told

    def suspect(self) -> None:
        """Look now: somebody was denied. Costs the caller nothing."""
        self._suspected.set()

    def wait_begun(self, seconds: float) -> bool:
        """Wait until the store was looked at; whether that came in time."""
        return self._begun.wait(seconds)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._suspected.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            self._suspected.clear()
            well = self._look_once()
            self._begun.set()
            if well:
                pause = _FIRST_PAUSE
                self._suspected.wait()
            else:
                # Whoever is denied while this is known says nothing new.
                self._stopped.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _look_once(self) -> bool:
        try:
            seen = self._look()
        except StorageDeniedError as error:
            self._change(closed=False)
            self._tell(error)
            return False
        except JobError as error:
            self._tell(error)
            return False
        except Exception:
            logger.exception("the store cannot be looked at")
            return False
        if seen.status is not Status.OK:
            logger.warning("%s (fix: %s)", seen.sentence, seen.fix)
        if self._told:
            logger.info("the store takes objects again")
            self._told = ""
        self._change(closed=True)
        return True

    def _tell(self, error: JobError) -> None:
        judged = self._judge(error)
        then = (
            "jobs are rendered, and wait with their files"
            if self.closed
            else "no jobs are taken until it takes objects"
        )
        if judged.sentence != self._told:
            logger.error("%s: %s (fix: %s)", judged.sentence, then, judged.fix)
        self._told = judged.sentence

    def _change(self, *, closed: bool) -> None:
        if self.closed == closed:
            return
        self.closed = closed
        for on_change in self._listeners:
            try:
                on_change(closed)
            except Exception:
                logger.exception("a listener of the store's watch failed")
