"""The HTTP and websocket routes of the stand-in."""

import asyncio
import json
import mimetypes
import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import WSMsgType, web

from sandbox.comfyui import rendering
from sandbox.comfyui.catalog import CHECKPOINTS, node_classes
from sandbox.comfyui.events import Clients, Connection
from sandbox.comfyui.execution import Executor
from sandbox.comfyui.faults import Faults
from sandbox.comfyui.files import EscapeError, Folders, free_path, within
from sandbox.comfyui.nodes import Installation, NodeClass
from sandbox.comfyui.queue import PromptQueue
from sandbox.comfyui.validation import validate
from sandbox.comfyui.versions import MAX_UPLOAD_BYTES, Version

# Real servers never serve what a browser would run.
_ACTIVE_TYPES = {"text/html", "text/css", "text/javascript", "application/javascript"}


@dataclass
class Server:
    """The state of one server and its request handlers."""

    installation: Installation
    classes: dict[str, NodeClass] = field(init=False)
    clients: Clients = field(init=False)
    queue: PromptQueue = field(init=False)
    executor: Executor = field(init=False)
    faults: Faults = field(init=False)
    _next_number: int = 0

    def __post_init__(self) -> None:
        """Connect the parts."""
        self.classes = node_classes(self.installation)
        self.clients = Clients()
        self.queue = PromptQueue(lambda: self.clients.send("status", self._status()))
        self.executor = Executor(self.queue, self.clients, self.classes, self.installation)
        self.faults = Faults(self.clients, self.executor)

    @property
    def version(self) -> Version:
        """The ComfyUI version that this server is."""
        return self.installation.version

    @property
    def folders(self) -> Folders:
        """The folders of inputs, outputs and previews."""
        return self.installation.folders

    def routes(self) -> list[web.RouteDef]:
        """Every route of ComfyUI that the stand-in has, without the `/api` prefix."""
        return [
            web.get("/ws", self._websocket),
            web.get("/prompt", self._get_prompt),
            web.post("/prompt", self._post_prompt),
            web.get("/queue", self._get_queue),
            web.post("/queue", self._post_queue),
            web.post("/interrupt", self._interrupt),
            web.get("/history", self._get_history),
            web.post("/history", self._post_history),
            web.get("/history/{prompt_id}", self._get_history_of),
            web.get("/view", self._view),
            web.post("/upload/image", self._upload_image),
            web.post("/upload/mask", self._upload_mask),
            web.get("/object_info", self._object_info),
            web.get("/object_info/{class_type}", self._object_info_of),
            web.get("/models", self._models),
            web.get("/models/{folder}", self._models_in),
            web.get("/embeddings", self._embeddings),
            web.get("/system_stats", self._system_stats),
            web.get("/features", self._features),
            web.post("/free", self._free),
        ]

    def _status(self) -> dict[str, Any]:
        return {"status": {"exec_info": {"queue_remaining": self.queue.remaining}}}

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if request.transport is None:
            return socket
        connection = Connection(socket, request.transport)
        client_id = request.query.get("clientId") or uuid4().hex
        with self.clients.connected(client_id, connection):
            self.clients.send("status", {**self._status(), "sid": client_id}, client_id)
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
            if first and message.type is WSMsgType.TEXT:
                with suppress(ValueError, AttributeError):
                    if json.loads(message.data).get("type") == "feature_flags":
                        self.clients.send("feature_flags", self.version.features, client_id)
            first = False

    async def _get_prompt(self, _: web.Request) -> web.Response:
        return web.json_response(self._status()["status"])

    async def _post_prompt(self, request: web.Request) -> web.Response:
        body = _fields(await request.json())
        number = self._number(body)
        if "prompt" not in body:
            error = {
                "type": "no_prompt",
                "message": "No prompt provided",
                "details": "No prompt provided",
                "extra_info": {},
            }
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        prompt = body["prompt"]
        verdict = validate(prompt, self.classes)
        if verdict.error:
            told = {"error": verdict.error, "node_errors": verdict.node_errors}
            return web.json_response(told, status=400)
        prompt_id = str(body.get("prompt_id", uuid4()))
        extra_data = self._extra_data(body)
        self.queue.put(number, prompt_id, prompt, extra_data, verdict.outputs)
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def _number(self, body: dict[str, Any]) -> float:
        """The prompt's place in the queue; rejected prompts use up a number as well."""
        if "number" in body:
            return float(body["number"])
        number = self._next_number
        self._next_number += 1
        return -number if body.get("front") else number

    def _extra_data(self, body: dict[str, Any]) -> dict[str, Any]:
        extra_data = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if self.version.stamps_create_time:
            extra_data["create_time"] = int(time.time() * 1000)
        return extra_data

    async def _get_queue(self, _: web.Request) -> web.Response:
        return web.json_response(self.queue.as_json())

    async def _post_queue(self, request: web.Request) -> web.Response:
        body = _fields(await request.json())
        if body.get("clear"):
            self.queue.clear()
        for prompt_id in body.get("delete", []):
            self.queue.delete(prompt_id)
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        self.executor.interrupt(body.get("prompt_id"))
        return web.Response()

    async def _get_history(self, request: web.Request) -> web.Response:
        max_items = request.query.get("max_items")
        offset = int(request.query.get("offset", -1))
        page = self.queue.history(None if max_items is None else int(max_items), offset)
        return web.json_response(page)

    async def _get_history_of(self, request: web.Request) -> web.Response:
        return web.json_response(self.queue.history_of(request.match_info["prompt_id"]))

    async def _post_history(self, request: web.Request) -> web.Response:
        body = _fields(await request.json())
        if body.get("clear"):
            self.queue.clear_history()
        for prompt_id in body.get("delete", []):
            self.queue.delete_history(prompt_id)
        return web.Response()

    async def _view(self, request: web.Request) -> web.StreamResponse:
        try:
            path = self.folders.locate(request.query)
        except FileNotFoundError:
            return web.Response(status=404)
        except EscapeError:
            return web.Response(status=403)
        except ValueError:
            return web.Response(status=400)
        headers = {"Content-Disposition": f'filename="{path.name}"'}
        if "preview" in request.query:
            spec = request.query["preview"]
            body, content_type = await asyncio.to_thread(rendering.preview, path, spec)
            return web.Response(body=body, content_type=content_type, headers=headers)
        if request.query.get("channel") in ("rgb", "a"):
            body = await asyncio.to_thread(rendering.channel, path, request.query["channel"])
            return web.Response(body=body, content_type="image/png", headers=headers)
        guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        safe = guessed not in _ACTIVE_TYPES
        headers["Content-Type"] = guessed if safe else "application/octet-stream"
        return web.FileResponse(path, headers=headers)

    async def _upload_image(self, request: web.Request) -> web.Response:
        return await self._upload(await request.post())

    async def _upload_mask(self, request: web.Request) -> web.Response:
        form = await request.post()
        reference = json.loads(str(form["original_ref"]))
        return await self._upload(form, reference)

    async def _upload(self, form: Any, original: dict[str, str] | None = None) -> web.Response:
        """Place an upload; a mask is laid over the `original` that the client names.

        A mask for an original that is not there is answered like any other, and written nowhere.
        """
        image = form.get("image")
        if not image:
            return web.Response(status=400)
        kind = form.get("type", "input")
        folder = self.folders.of(kind)
        if folder is None:
            raise ValueError(f"there is no folder of type {kind!r}")
        try:
            target = within(folder, form.get("subfolder", ""))
            path = within(target, image.filename.lstrip("/"))
        except EscapeError:
            return web.Response(status=400)
        target.mkdir(parents=True, exist_ok=True)
        content = image.file.read()
        if form.get("overwrite") not in ("true", "1"):
            path = free_path(path, content)
        if original is None:
            await asyncio.to_thread(path.write_bytes, content)
        else:
            with suppress(FileNotFoundError, EscapeError, ValueError):
                source = self.folders.locate(original)
                await asyncio.to_thread(rendering.apply_mask, source, content, path)
        placed = {"name": path.name, "subfolder": form.get("subfolder", ""), "type": kind}
        return web.json_response(placed)

    async def _object_info(self, _: web.Request) -> web.Response:
        return web.json_response({name: node.object_info() for name, node in self.classes.items()})

    async def _object_info_of(self, request: web.Request) -> web.Response:
        name = request.match_info["class_type"]
        known = {name: self.classes[name].object_info()} if name in self.classes else {}
        return web.json_response(known)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response(self.version.model_folders)

    async def _models_in(self, request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in self.version.model_folders:
            return web.Response(status=404)
        return web.json_response(CHECKPOINTS if folder == "checkpoints" else [])

    async def _embeddings(self, _: web.Request) -> web.Response:
        return web.json_response([])

    async def _system_stats(self, _: web.Request) -> web.Response:
        page = os.sysconf("SC_PAGE_SIZE")
        total, available = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
        system = {
            "os": self.version.os_name,
            "ram_total": total,
            "ram_free": available,
            "comfyui_version": self.version.number,
            "required_frontend_version": self.version.required_frontend_version,
            "installed_templates_version": None,
            "required_templates_version": self.version.required_templates_version,
            "python_version": f"{platform.python_version()} (stand-in)",
            "pytorch_version": "none (stand-in)",
            "embedded_python": False,
            "argv": sys.argv,
        }
        device = {
            "name": "cpu",
            "type": "cpu",
            "index": None,
            "vram_total": total,
            "vram_free": available,
            "torch_vram_total": total,
            "torch_vram_free": available,
        }
        return web.json_response({"system": system, "devices": [device]})

    async def _features(self, _: web.Request) -> web.Response:
        return web.json_response(self.version.features)

    async def _free(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("free_memory"):
            self.executor.free()
        return web.Response()


def _fields(body: Any) -> dict[str, Any]:
    """The fields of a JSON body. As on real servers a list or a text has none, and others fail."""
    if isinstance(body, list | str):
        return {}
    if not isinstance(body, dict):
        raise TypeError(f"a body of type {type(body).__name__} has no fields")
    return body


def create_app(installation: Installation) -> web.Application:
    """Make the application of one server, whose folders are created when it starts."""
    server = Server(installation)
    app = web.Application(client_max_size=MAX_UPLOAD_BYTES, middlewares=[server.faults.middleware])
    app.add_routes(server.routes())
    app.add_routes(
        web.RouteDef(route.method, f"/api{route.path}", route.handler, route.kwargs)
        for route in server.routes()
    )
    app.add_routes(server.faults.routes())

    async def execute_prompts(_: web.Application) -> Any:
        installation.folders.create()
        executing = asyncio.create_task(server.executor.serve())
        yield
        executing.cancel()
        with suppress(asyncio.CancelledError):
            await executing

    async def close_websockets(_: web.Application) -> None:
        for connection in server.clients.connections:
            await connection.close()

    app.cleanup_ctx.append(execute_prompts)
    app.on_shutdown.append(close_websockets)
    return app
