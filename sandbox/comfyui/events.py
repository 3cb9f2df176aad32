"""The websockets: who is connected under which client id, and what is sent to whom."""

import asyncio
import json
from asyncio import Transport
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp.web import WebSocketResponse


class Connection:
    """One websocket and the messages that wait to be written to it."""

    def __init__(self, socket: WebSocketResponse, transport: Transport) -> None:
        """Wrap an open websocket and the transport below it."""
        self._socket = socket
        self._transport = transport
        self._waiting: asyncio.Queue[str] = asyncio.Queue()

    def send(self, event: str, data: Any) -> None:
        """Queue one message; messages arrive in the order of these calls."""
        self._waiting.put_nowait(json.dumps({"type": event, "data": data}))

    async def write(self) -> None:
        """Write queued messages until cancelled or cut off."""
        while True:
            await self._socket.send_str(await self._waiting.get())

    async def close(self) -> None:
        """End the websocket in good order."""
        await self._socket.close()

    def abort(self) -> None:
        """Cut the connection without a farewell."""
        self._transport.abort()


class Clients:
    """The connected clients by client id.

    A second websocket with the same client id takes the first one's place, and whichever of the two
    closes first leaves the id without one: the other stays open and hears nothing more. Real
    servers do so.
    """

    def __init__(self) -> None:
        """Start with nobody connected."""
        self._by_id: dict[str, Connection] = {}
        self._open: set[Connection] = set()
        self.muted = False

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Every open websocket, also those that hear nothing."""
        return tuple(self._open)

    @contextmanager
    def connected(self, client_id: str, connection: Connection) -> Iterator[None]:
        """Keep a websocket registered while the block runs."""
        self._open.add(connection)
        self._by_id[client_id] = connection
        try:
            yield
        finally:
            self._open.discard(connection)
            self._by_id.pop(client_id, None)

    def send(self, event: str, data: Any, client_id: str | None = None) -> None:
        """Send to one client, or to all; a client that is not connected misses it."""
        if self.muted:
            return
        if client_id is None:
            for connection in self._by_id.values():
                connection.send(event, data)
        elif client_id in self._by_id:
            self._by_id[client_id].send(event, data)
