"""Hosts of the web as tests need them: they answer as told, and keep what they are asked."""

import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

# Of `files.example`, `other.example` and 127.0.0.1, signed by itself for a hundred years
# (openssl req -x509 -addext subjectAltName=...), with its key.
CERTIFICATE = Path(__file__).parents[1] / "fixtures" / "tls" / "hosts.pem"

Handle = Callable[["Asked"], None]


class Asked:
    """One request, and the way to answer it."""

    def __init__(
        self, connection: socket.socket, head: bytes, body: bytes, ended: threading.Event
    ) -> None:
        self._connection = connection
        self.body = body
        self._ended = ended
        request, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, *_ = request.split()
        pairs = (line.partition(":") for line in lines if line)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}

    def send(self, text: bytes) -> None:
        self._connection.sendall(text)

    def answer(self, content: bytes = b"", status: str = "200 OK", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}"]
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(content)), **named}.items():
            lines.append(f"{name}: {value}")
        self.send("\r\n".join([*lines, "", ""]).encode() + content)

    def redirect(self, location: str, **headers: str) -> None:
        self.answer(status="302 Found", Location=location, **headers)

    def drip(self, piece: bytes = b"x") -> None:
        """Send a piece now and then until nobody listens any more."""
        while not self._ended.wait(0.02):
            self.send(piece)


class Host:
    """A server on loopback, with TLS or without; what it does is a function of each path."""

    def __init__(self, *, tls: bool = True, speaks: bool = True) -> None:
        """Start to listen.

        Args:
            tls: whether it speaks TLS.
            speaks: whether it says anything at all.
        """
        self.asked: list[Asked] = []
        self.names: list[str | None] = []
        self.paths: dict[str, Handle] = {}
        self.ended = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self._context:
            self._context.load_cert_chain(CERTIFICATE)
            self._context.sni_callback = lambda _, name, __: self.names.append(name)
        self._speaks = speaks
        host = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                # Clients go away in the middle; that is what the tests are about.
                with suppress(OSError):
                    host._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "/", name: str = "files.example") -> str:
        return f"{'https' if self._context else 'http'}://{name}:{self.port}{path}"

    def _serve(self, connection: socket.socket) -> None:
        if not self._speaks:
            self.ended.wait()
            return
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := connection.recv(65536)):
                    return
                head += piece
                if not head.startswith((b"G", b"POST ")):
                    # Not HTTP: what else it is would never end.
                    return
            head, _, body = head.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
            while length and len(body) < int(length.group(1)):
                if not (piece := connection.recv(65536)):
                    return
                body += piece
            asked = Asked(connection, head, body, self.ended)
            self.asked.append(asked)
            self.paths[asked.path.partition("?")[0]](asked)
