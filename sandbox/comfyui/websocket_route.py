"""The route that clients listen on."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from aiohttp import WSMsgType, web

from sandbox.comfyui.events import Clients, Connection
from sandbox.comfyui.execution import Executor
from sandbox.comfyui.queue import PromptQueue
from sandbox.comfyui.versions import Version


@dataclass(frozen=True)
class WebsocketRoute:
    """`/ws`."""

    version: Version
    clients: Clients
    queue: PromptQueue
    executor: Executor

    def routes(self) -> list[web.RouteDef]:
        """The route, without the `/api` prefix."""
        return [web.get("/ws", self._websocket)]

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if request.transport is None:
            return socket
        connection = Connection(socket, request.transport)
        client_id = request.query.get("clientId") or uuid4().hex
        with self.clients.connected(client_id, connection):
            greeting = {"status": self.queue.status(), "sid": client_id}
            self.clients.send("status", greeting, client_id)
            if node_id := self.executor.executing_node(client_id):
                self.clients.send("executing", {"node": node_id}, client_id)
            writer = asyncio.create_task(connection.write())
            try:
                await self._listen(socket, client_id)
            finally:
                writer.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await writer
        return socket

    async def _listen(self, socket: web.WebSocketResponse, client_id: str) -> None:
        """Read until the client is gone; only a first message can be an offer of features."""
        first = True
        async for message in socket:
            if first and message.type is WSMsgType.TEXT and _offers_features(message.data):
                self.clients.send("feature_flags", self.version.features, client_id)
            first = False


def _offers_features(text: str) -> bool:
    with suppress(ValueError, AttributeError):
        return bool(json.loads(text).get("type") == "feature_flags")
    return False
