"""A tap on what goes to an HTTP server: the request lines, in order."""

import re
from typing import Any, Self
from urllib.parse import urlsplit

from sandbox.proxy import TcpProxy

_REQUEST = re.compile(rb"(?:^|\r\n)([A-Z]+) (\S+) HTTP/1\.1\r\n")


class HttpTap(TcpProxy):
    """Forwards to a server and keeps each request's method and path, without its query.

    `connections` counts what clients have opened, `continues` answers that only ask for the body,
    `unchanged` those that say that what is known is still so.
    """

    def __init__(self, url: str) -> None:
        self.requests: list[tuple[str, str]] = []
        self.connections = self.continues = self.unchanged = 0
        target = urlsplit(url)
        super().__init__(str(target.hostname), target.port or 0)

    def __enter__(self) -> Self:
        return self

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"http://{self.address}"

    async def _serve(self, connection: Any) -> None:
        self.connections += 1
        await super()._serve(connection)

    async def _next_piece(self, end: Any) -> bytes:
        piece = await super()._next_piece(end)
        # Answers begin otherwise.
        for method, path in _REQUEST.findall(piece):
            self.requests.append((method.decode(), path.decode().partition("?")[0]))
        self.continues += piece.count(b"HTTP/1.1 100 ")
        self.unchanged += piece.count(b"HTTP/1.1 304 ")
        return piece
