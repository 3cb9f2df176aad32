"""A store that is far away: the real one, behind a relay that takes its time and counts."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from threading import Thread
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_PIECE_BYTES = 64 * 1024
_MOST_PIECES = 1024
_METHODS = frozenset((b"GET", b"PUT", b"POST", b"HEAD", b"DELETE"))
_CONTINUE = b"HTTP/1.1 100 "

# The bytes of answers that are under way, and when (the loop's clock) they arrive.
_UnderWay = asyncio.Queue[tuple[float, bytes]]


class Relay:
    """Forwards a port of its own to a store, from a thread of its own, until it is closed.

    Each byte of an answer arrives so much later than it was sent, however many are under way: a
    request takes so much longer, once, whatever its size and whether its connection is new.
    """

    def __init__(self, url: str) -> None:
        """Take a free port on loopback and begin to forward, with no distance yet."""
        target = urlsplit(url)
        self._target = target.hostname, target.port
        self.seconds = 0.0
        """That a request takes longer; a change holds for answers that are sent after it."""
        self.requests: Counter[str] = Counter()
        """How many came, by method."""
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="distance", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and give the port back."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, action: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result()

    async def _end(self) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(client, answers))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            store, requests = await asyncio.open_connection(*self._target)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._send(client, requests))
                    both.create_task(self._answer(store, answers))
            finally:
                requests.close()
        except* OSError:
            # Whoever is left sees the end of its connection, as over any other network.
            pass
        finally:
            answers.close()

    async def _send(self, client: asyncio.StreamReader, requests: asyncio.StreamWriter) -> None:
        while piece := await client.read(_PIECE_BYTES):
            # Clients send a request only after the answer to the one before: it begins a piece.
            method = piece.partition(b" ")[0]
            if method in _METHODS:
                self.requests[method.decode()] += 1
            requests.write(piece)
            await requests.drain()
        requests.write_eof()

    async def _answer(self, store: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        under_way: _UnderWay = asyncio.Queue(_MOST_PIECES)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._depart(store, under_way))
            both.create_task(self._arrive(under_way, answers))

    async def _depart(self, store: asyncio.StreamReader, under_way: _UnderWay) -> None:
        while True:
            piece = await store.read(_PIECE_BYTES)
            # boto3 asks before it sends a body; that the store is willing is no answer yet.
            seconds = 0.0 if piece.startswith(_CONTINUE) else self.seconds
            await under_way.put((self._loop.time() + seconds, piece))
            if not piece:
                return

    async def _arrive(self, under_way: _UnderWay, answers: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await under_way.get()
            if (left := due - self._loop.time()) > 0:
                await asyncio.sleep(left)
            if not piece:
                answers.write_eof()
                return
            answers.write(piece)
            await answers.drain()
