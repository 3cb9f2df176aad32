"""The HTTP server of metrics and health: few pages, for few who ask at a time."""

import logging
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

# Connections at a time; for one more the oldest is cut, so that those who say nothing or never read
# keep nobody from asking.
MOST_OPEN = 8
# Threads at a time, of those that are cut and not yet gone too.
_MOST_THREADS = 32
# Seconds that the end of it takes at most.
_END_SECONDS = 0.1
# Seconds without a byte of whoever asks.
_SILENCE_SECONDS = 10.0


class Page(NamedTuple):
    """An answer."""

    status: int
    media_type: str
    body: bytes


Pages = Mapping[str, Callable[[str], Page]]
"""What makes the page at each path; it is given what the request accepts."""


class Endpoint:
    """Bound when it is made; answers from `show` on, in threads of its own."""

    def __init__(self, host: str, port: int) -> None:
        """Bind it.

        Raises:
            OSError: somebody else has the port, or it is not ours to have.
        """
        self._server = _server_class(host)((host, port), _Handler)
        self._thread: threading.Thread | None = None

    def show(self, pages: Pages) -> None:
        """Answer with these pages from now on."""
        self._server.pages = pages
        if self._thread is None:
            serve = partial(self._server.serve_forever, poll_interval=_END_SECONDS)
            self._thread = threading.Thread(target=serve, name="metrics", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    # Later versions of Python would let two workers have one port.
    allow_reuse_port = False
    request_queue_size = 64

    def __init__(self, *args: Any) -> None:
        self.pages: Pages = {}
        self._lock = threading.Lock()
        self._open: deque[Any] = deque()
        self._alive = 0
        super().__init__(*args)

    def server_bind(self) -> None:
        # What is left out looks for this host's name, which may take a while.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            refused = self._alive >= _MOST_THREADS
            if not refused:
                self._alive += 1
                self._open.append(request)
                cut = self._open.popleft() if len(self._open) > MOST_OPEN else None
        if refused:
            super().shutdown_request(request)
            return
        if cut is not None:
            _cut(cut)
        try:
            super().process_request(request, client_address)
        except BaseException:
            # There is no thread for it.
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._alive -= 1
            if request in self._open:
                self._open.remove(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # its signature
        error = sys.exception()
        if not isinstance(error, OSError):
            logger.error("a request for metrics or health failed", exc_info=error)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has ended by itself.
        return


class _Handler(BaseHTTPRequestHandler):
    timeout = _SILENCE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        page = self._page()
        self.send_response(page.status)
        self.send_header("Content-Type", page.media_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815  # as http.server calls it

    def _page(self) -> Page:
        make = self.server.pages.get(self.path.partition("?")[0])
        if make is None:
            there = ", ".join(self.server.pages)
            return Page(404, "text/plain", f"there are {there}\n".encode())
        try:
            return make(self.headers.get("Accept", ""))
        except Exception:
            logger.exception("a page cannot be made")
            return Page(500, "text/plain", b"the worker's log says why\n")

    def version_string(self) -> str:
        return "comfyfleet"

    def log_message(self, *_: Any) -> None:
        """Say nothing of each scrape."""
