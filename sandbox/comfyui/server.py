"""The server: its parts, connected, and what runs beside its routes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

from sandbox.comfyui.catalog import node_classes
from sandbox.comfyui.events import Clients
from sandbox.comfyui.execution import Executor
from sandbox.comfyui.faults import Faults
from sandbox.comfyui.file_routes import FileRoutes
from sandbox.comfyui.info_routes import InfoRoutes
from sandbox.comfyui.nodes import Installation
from sandbox.comfyui.prompt_routes import PromptRoutes
from sandbox.comfyui.queue import PromptQueue
from sandbox.comfyui.versions import MAX_UPLOAD_BYTES
from sandbox.comfyui.websocket_route import WebsocketRoute


def create_app(installation: Installation) -> web.Application:
    """Make the application of one server, whose folders are created when it starts.

    Raises:
        ValueError: it is to lack a node class that there is none of.
    """
    version, classes = installation.version, node_classes(installation)
    clients = Clients()
    queue = PromptQueue(lambda status: clients.send("status", {"status": status}))
    executor = Executor(queue, clients, classes, installation)
    faults = Faults(clients, executor, installation.pace)
    routes = [
        *PromptRoutes(version, classes, queue, executor).routes(),
        *WebsocketRoute(version, clients, queue, executor).routes(),
        *FileRoutes(installation.folders).routes(),
        *InfoRoutes(version, installation.models, classes).routes(),
    ]

    async def execute_prompts(_: web.Application) -> AsyncIterator[None]:
        installation.folders.create()
        executing = asyncio.create_task(executor.serve())
        yield
        executing.cancel()
        with suppress(asyncio.CancelledError):
            await executing

    async def close_websockets(_: web.Application) -> None:
        for connection in clients.connections:
            await connection.close()

    app = web.Application(client_max_size=MAX_UPLOAD_BYTES, middlewares=[faults.middleware])
    app.add_routes([*routes, *map(_under_api, routes), *faults.routes()])
    app.cleanup_ctx.append(execute_prompts)
    app.on_shutdown.append(close_websockets)
    return app


def _under_api(route: web.RouteDef) -> web.RouteDef:
    return web.RouteDef(route.method, f"/api{route.path}", route.handler, route.kwargs)
