"""Faults on demand, for tests of those who must survive them; nothing of this is in ComfyUI."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web

from sandbox.comfyui.events import Clients
from sandbox.comfyui.execution import Executor
from sandbox.comfyui.nodes import Pace

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class HttpFault:
    """One rule: requests that match are delayed, answered wrongly, or not answered."""

    method: str
    path: str
    """As without `/api`; `*` and `?` match as in file names."""
    status: int | None = None
    body: str = ""
    content_type: str = "text/plain"
    delay_seconds: float = 0
    drop: bool = False
    """Close the connection without an answer."""
    after: bool = False
    """Let the server do its work first, so that only its answer is spoilt."""
    times: int | None = None
    """How many requests it spoils; without it, all."""

    def matches(self, method: str, path: str) -> bool:
        """Whether the rule is for this request and not used up."""
        return self.method == method and fnmatchcase(path, self.path) and self.times != 0


class Faults:
    """The rules in force, and the routes under `/sandbox` that set them."""

    def __init__(self, clients: Clients, executor: Executor, pace: Pace) -> None:
        """Start with no fault."""
        self._clients = clients
        self._executor = executor
        self._pace = pace
        self._http: list[HttpFault] = []
        self._refuse_websocket = False

    def routes(self) -> list[web.RouteDef]:
        """The routes to set and clear faults and to see what has been executed."""
        return [
            web.put("/sandbox/faults", self._put),
            web.delete("/sandbox/faults", self._delete),
            web.put("/sandbox/steps", self._let_steps),
            web.post("/sandbox/faults/cut", self._cut),
            web.post("/sandbox/faults/broadcast", self._broadcast),
            web.get("/sandbox/executions", self._executions),
        ]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Apply the first rule that matches a request."""
        path = request.path.removeprefix("/api")
        if path == "/ws" and self._refuse_websocket:
            return web.Response(status=503)
        for fault in self._http:
            if fault.matches(request.method, path):
                return await self._apply(fault, request, handler)
        return await handler(request)

    async def _apply(
        self, fault: HttpFault, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if fault.times is not None:
            fault.times -= 1
        answer = await handler(request) if fault.after else None
        await asyncio.sleep(fault.delay_seconds)
        if fault.drop:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault.status is not None:
            return web.Response(
                status=fault.status, text=fault.body, content_type=fault.content_type
            )
        return answer or await handler(request)

    async def _put(self, request: web.Request) -> web.Response:
        rules = await request.json()
        self._set(rules)
        return web.Response()

    def _set(self, rules: Mapping[str, Any]) -> None:
        self._http = [HttpFault(**rule) for rule in rules.get("http", [])]
        websocket = rules.get("websocket")
        self._refuse_websocket = websocket == "refuse"
        self._clients.muted = websocket == "mute"

    async def _delete(self, _: web.Request) -> web.Response:
        self._set({})
        return web.Response()

    async def _let_steps(self, request: web.Request) -> web.Response:
        self._pace.let(await request.json())
        return web.Response()

    async def _cut(self, _: web.Request) -> web.Response:
        for connection in self._clients.connections:
            connection.abort()
        return web.Response()

    async def _broadcast(self, request: web.Request) -> web.Response:
        message = await request.json()
        self._clients.send(message["type"], message["data"])
        return web.Response()

    async def _executions(self, _: web.Request) -> web.Response:
        return web.json_response(self._executor.log.counts())
