"""One end for a whole conversation: its names, its handshakes and all of its bytes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from workers.web.errors import TooSlowError, WebError

T = TypeVar("T")


class Deadline:
    """When something must be over. A byte now and then outwits the timeout of a socket."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            TooSlowError: there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed
        return left

    @property
    def passed(self) -> TooSlowError:
        """The error of what did not end in time."""
        return TooSlowError(f"took longer than {self._seconds:g} s")

    def wait_for(self, ask: Callable[[], T]) -> T:
        """The answer to a question that knows no timeout; what it raises is raised.

        Raises:
            TooSlowError: there was no answer in time; nobody waits for it any more.
        """
        answers: list[T] = []
        errors: list[Exception] = []

        def listen() -> None:
            try:
                answers.append(ask())
            except Exception as error:  # noqa: BLE001  # it is raised by who waits
                errors.append(error)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        thread.join(self.left())
        if errors:
            raise errors[0]
        if not answers:
            raise self.passed
        return answers[0]

    @contextmanager
    def cutting(self, connection: socket.socket) -> Iterator[None]:
        """Cut the connection at the end, whatever it is in the middle of.

        Raises:
            TooSlowError: it was cut.
        """
        late = threading.Event()
        # The connection's own socket becomes another one's with TLS.
        with connection.dup() as handle:

            def cut() -> None:
                late.set()
                # The other side may have ended it.
                with suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)

            timer = threading.Timer(self.left(), cut)
            timer.daemon = True
            timer.start()
            try:
                yield
            except WebError as error:
                if late.is_set():
                    raise self.passed from error
                raise
            finally:
                timer.cancel()
                timer.join()
        if late.is_set():
            raise self.passed
