"""A worker whose server is down goes to another one that is free."""

import logging
import threading
import time
from collections.abc import Callable

from tasks.errors import JobError

logger = logging.getLogger(__name__)

# Seconds for which a server must have been down.
DOWN_SECONDS = 60.0
# Seconds between two looks.
_LOOK_SECONDS = 5.0


class Moving:
    """Looks, from a thread of its own, whether another server would do better."""

    def __init__(
        self,
        *,
        answers: Callable[[], bool],
        is_another_free: Callable[[], bool],
        move: Callable[[], None],
    ) -> None:
        """Prepare; `start` begins to look.

        Args:
            answers: whether the worker's own server answers.
            is_another_free: whether one that answers can be had.
            move: has the worker begin anew.
        """
        self._answers = answers
        self._is_another_free = is_another_free
        self._move = move
        self._answered_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moving", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def is_time(self, now: float) -> bool:
        """Whether the server has been down for so long, and another one is free."""
        if self._answers():
            self._answered_at = now
        return now - self._answered_at >= DOWN_SECONDS and self._is_another_free()

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            try:
                if self.is_time(time.monotonic()):
                    logger.warning(
                        "the server has been down for %.0f s, and another one is free: this "
                        "worker moves there",
                        time.monotonic() - self._answered_at,
                    )
                    self._move()
                    return
            except JobError as error:
                logger.info("whether another server is free is not known: %s", error)
            except Exception:
                logger.exception("whether another server is free cannot be told")
