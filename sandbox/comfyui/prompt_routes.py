"""Routes that take prompts, stop them, and tell of waiting and finished ones."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from aiohttp import web

from sandbox.comfyui.execution import Executor
from sandbox.comfyui.nodes import NodeClass
from sandbox.comfyui.queue import PromptQueue
from sandbox.comfyui.validation import validate
from sandbox.comfyui.versions import Version


@dataclass
class PromptRoutes:
    """`/prompt`, `/queue`, `/interrupt`, `/history` and `/free`."""

    version: Version
    classes: Mapping[str, NodeClass]
    queue: PromptQueue
    executor: Executor
    _next_number: int = 0

    def routes(self) -> list[web.RouteDef]:
        """The routes, without the `/api` prefix."""
        return [
            web.get("/prompt", self._get_prompt),
            web.post("/prompt", self._post_prompt),
            web.get("/queue", self._get_queue),
            web.post("/queue", self._post_queue),
            web.post("/interrupt", self._interrupt),
            web.get("/history", self._get_history),
            web.post("/history", self._post_history),
            web.get("/history/{prompt_id}", self._get_history_of),
            web.post("/free", self._free),
        ]

    async def _get_prompt(self, _: web.Request) -> web.Response:
        return web.json_response(self.queue.status())

    async def _post_prompt(self, request: web.Request) -> web.Response:
        body = _fields(await request.json())
        number = self._number(body)
        if "prompt" not in body:
            message = "No prompt provided"
            error = {"type": "no_prompt", "message": message, "details": message, "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        prompt = body["prompt"]
        verdict = validate(prompt, self.classes)
        if verdict.error:
            told = {"error": verdict.error, "node_errors": verdict.node_errors}
            return web.json_response(told, status=400)
        prompt_id = str(body.get("prompt_id", uuid4()))
        self.queue.put(number, prompt_id, prompt, self._extra_data(body), verdict.outputs)
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
