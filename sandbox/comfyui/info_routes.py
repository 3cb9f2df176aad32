"""Routes that tell what the server is and has."""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from sandbox.comfyui.model_files import ModelFiles
from sandbox.comfyui.nodes import NodeClass
from sandbox.comfyui.versions import Version


@dataclass(frozen=True)
class InfoRoutes:
    """Node classes, models, version and machine."""

    version: Version
    models: ModelFiles
    classes: Mapping[str, NodeClass]

    def routes(self) -> list[web.RouteDef]:
        """The routes, without the `/api` prefix."""
        return [
            web.get("/object_info", self._object_info),
            web.get("/object_info/{class_type}", self._object_info_of),
            web.get("/models", self._models),
            web.get("/models/{folder}", self._models_in),
            web.get("/embeddings", self._embeddings),
            web.get("/system_stats", self._system_stats),
            web.get("/features", self._features),
        ]

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
        return web.json_response(self.models.listed(folder))

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
