"""A TCP proxy between two parts of the stack that can be made to misbehave."""

import asyncio
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Thread
from types import TracebackType
from typing import Any, Self

_PIECE_BYTES = 64 * 1024

# In an answer every so-manieth byte is garbage, from the first on.
_CORRUPT_STRIDE = 8

# On close: no farewell but a reset.
_RESET = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What the proxy does with connections, open ones and new ones alike."""

    PASS = auto()
    """Forward everything."""
    DELAY = auto()
    """Hold every piece in either direction for some seconds."""
    REFUSE = auto()
    """Reset what is open, and refuse new connections as a port does where nobody listens."""
    BLACKHOLE = auto()
    """Accept, and hold whatever comes, as a lost network does; a later mode goes on with it."""
    HALF_CLOSE = auto()
    """End the answers, while requests are still forwarded."""
    CORRUPT = auto()
    """Spoil answers with garbage bytes."""


@dataclass(eq=False)
class _Connection:
    """One client, its server, and how much it has been answered since a cut was ordered."""

    client: socket.socket
    server: socket.socket = field(default_factory=socket.socket)
    answered: int = 0
    in_good_order: bool = False
    """Both ends have said all that they had to say."""

    def close(self) -> None:
        """Close both ends; what one of them did to the proxy, the proxy does to the other."""
        for end in (self.client, self.server):
            if not self.in_good_order:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    def end_answers(self) -> None:
        """Tell the client that no more comes."""
        _end(self.client)


class TcpProxy:
    """Forwards a port of its own to a target, from a thread of its own, until it is closed.

    The target is connected anew for each client, so that it may come and go. Where it does not
    answer, the client's connection is reset.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        """Take a free port on loopback and begin to forward."""
        self._target = target_host, target_port
        self._mode = Mode.PASS
        self._delay = 0.0
        self._cut_after: int | None = None
        self._flowing = asyncio.Event()
        self._serving: dict[asyncio.Task[None], _Connection] = {}
        self._listener: socket.socket | None = None
        # Bound and never listening: the port stays ours while connections are refused.
        self._keeper = _bound(0)
        self.host, self.port = self._keeper.getsockname()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self.set(Mode.PASS)

    @property
    def address(self) -> str:
        """Where clients connect to, `host:port`."""
        return f"{self.host}:{self.port}"

    def set(self, mode: Mode, delay_seconds: float = 0.0) -> None:
        """Behave so from now on; returns when it does.

        Args:
            mode: the behaviour.
            delay_seconds: how long `Mode.DELAY` holds each piece.
        """
        self._run(self._set(mode, delay_seconds))

    def cut(self) -> None:
        """Reset all open connections; new ones are served as before."""
        self._run(self._cut())

    def cut_after(self, answer_bytes: int) -> None:
        """Reset the first connection, open or new, that has answered so many bytes from now on.

        Exactly these arrive. It happens once.
        """
        self._run(self._order_cut(answer_bytes))

    def close(self) -> None:
        """Reset all connections and give the port back."""
        if self._loop.is_closed():
            return
        self.set(Mode.REFUSE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, order: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(order, self._loop).result()

    async def _set(self, mode: Mode, delay_seconds: float) -> None:
        self._mode, self._delay = mode, delay_seconds
        if mode is Mode.REFUSE:
            self._stop_listening()
            await self._cut()
        else:
            self._listen()
        if mode is Mode.HALF_CLOSE:
            for connection in self._serving.values():
                connection.end_answers()
        if mode is Mode.BLACKHOLE:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def _cut(self) -> None:
        tasks = list(self._serving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _order_cut(self, answer_bytes: int) -> None:
        self._cut_after = answer_bytes
        for connection in self._serving.values():
            connection.answered = 0

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.setblocking(False)
            self._listener.listen()
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        # The client may have gone before it was its turn.
        with suppress(OSError):
            client, _ = listener.accept()
            connection = _Connection(client)
            task = self._loop.create_task(self._serve(connection))
            self._serving[task] = connection
            # Not in the task itself: one that is cancelled early does not even begin.
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._serving.pop(task).close()

    async def _serve(self, connection: _Connection) -> None:
        client, server = connection.client, connection.server
        client.setblocking(False)
        server.setblocking(False)
        await self._flowing.wait()
        try:
            await self._loop.sock_connect(server, self._target)
            if self._mode is Mode.HALF_CLOSE:
                connection.end_answers()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward_requests(connection))
                both.create_task(self._forward_answers(connection))
            connection.in_good_order = True
        except* OSError:
            # Neither end is owed an explanation; both are reset.
            pass

    async def _forward_requests(self, connection: _Connection) -> None:
        while piece := await self._next_piece(connection.client):
            await self._loop.sock_sendall(connection.server, piece)
        _end(connection.server)

    async def _forward_answers(self, connection: _Connection) -> None:
        while piece := await self._next_piece(connection.server):
            if self._mode is Mode.HALF_CLOSE:
                continue
            answer = _corrupted(piece) if self._mode is Mode.CORRUPT else piece
            room = None if self._cut_after is None else self._cut_after - connection.answered
            await self._loop.sock_sendall(connection.client, answer[:room])
            connection.answered += len(answer)
            if room is not None and len(answer) >= room:
                self._cut_after = None
                raise ConnectionAbortedError
        connection.end_answers()

    async def _next_piece(self, end: socket.socket) -> bytes:
        """The next bytes when their time has come; none at the end."""
        piece = await self._loop.sock_recv(end, _PIECE_BYTES)
        await self._flowing.wait()
        if self._mode is Mode.DELAY:
            await asyncio.sleep(self._delay)
        return piece


def _bound(port: int) -> socket.socket:
    """A socket on loopback; several may share a port, of which one listens."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    return one


def _end(end: socket.socket) -> None:
    """Tell it that no more comes, if it is still there."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_WR)


def _corrupted(answer: bytes) -> bytes:
    spoilt = bytearray(answer)
    for at in range(0, len(spoilt), _CORRUPT_STRIDE):
        spoilt[at] ^= 0xFF
    return bytes(spoilt)
