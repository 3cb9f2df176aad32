"""The server of a worker process: taken before the worker is made, let go of when it has ended."""

import signal
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import TYPE_CHECKING

from settings import Settings
from workers.bootstrap.pinning import pinned_to, pinning, spare_of

if TYPE_CHECKING:
    from workers.lifecycle.pinned import Pinned


class OwnServer:
    """One that no other worker drives; or any, where that is meant so."""

    def __init__(self, settings: Settings, name: str | None, on_wait: Callable[[], None]) -> None:
        """Take nothing yet.

        Args:
            settings: of the worker.
            name: of the worker, unless that follows its server.
            on_wait: called before the first line about waiting.
        """
        self._settings = settings
        self._pinning = pinning(settings, name, on_wait)
        self.pinned: Pinned | None = None
        """The lease on it; none if it is shared."""
        self._is_to_end = False

    def take(self) -> Settings:
        """Take a server, which may take long; the settings of a worker that drives it."""
        if self._settings.comfyui_shared:
            return self._settings
        # Until Celery has its own: whoever waits for a server leaves at once.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._end)
        with closing(spare_of(self._settings)) as spare:

            def wait() -> None:
                self.check_end()
                spare.tell()

            url, self.pinned = self._pinning.take(wait)
        self.check_end()
        self.pinned.start()
        return pinned_to(self._settings, url)

    def check_end(self) -> None:
        """End the process if it was to end before: what a handler raises in a finalizer is lost.

        Raises:
            SystemExit: it was.
        """
        if self._is_to_end:
            raise SystemExit(0)

    def missing(self) -> str:
        """Why there is none, while one is waited for."""
        return self._pinning.reason

    @property
    def is_another_free(self) -> Callable[[str], bool] | None:
        """Says whether a server beside the one with a URL can be had, if there are several."""
        is_choosy = self.pinned is not None and len(self._settings.comfyui_servers) > 1
        return self._pinning.is_another_free if is_choosy else None

    @property
    def is_lost(self) -> bool:
        """Whether another worker drives it now."""
        return self.pinned is not None and self.pinned.is_lost

    def let_go(self) -> None:
        """Let another worker have it."""
        if self.pinned is not None:
            self.pinned.let_go()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._is_to_end = True
        raise SystemExit(0)
