"""Connections that wait for an answer as a whole no longer than is sensible."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter

# An answer as a whole may take so many times the wait between two of its bytes.
PATIENCE = 2


@contextmanager
def at_most(seconds: float, cut: Callable[[], object]) -> Iterator[None]:
    """Cut a connection that is not done in time: a byte now and then outwits its own timeout.

    Raises:
        TimeoutError: it was cut.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        # It may just have come to its end.
        with suppress(OSError, RuntimeError, ValueError):
            cut()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException, urllib3.exceptions.HTTPError):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError


class _Connection(urllib3.connection.HTTPConnection):
    """A connection on which the head of an answer is waited for as long as its body."""

    def getresponse(self) -> Any:
        """The answer, its head read."""
        seconds = PATIENCE * float(self.timeout or 0)
        with at_most(seconds, partial(self.sock.shutdown, socket.SHUT_RD)):
            return super().getresponse()


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    """The same with TLS."""


class Adapter(HTTPAdapter):
    """Makes such connections."""

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """The pool of connections to a server."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _TlsConnection if pool.scheme == "https" else _Connection
        return pool
