"""Routes that serve files and take uploads."""

import asyncio
import json
import mimetypes
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from sandbox.comfyui import rendering
from sandbox.comfyui.files import EscapeError, Folders, free_path, within

# Real servers never serve what a browser would run.
_ACTIVE_TYPES = {"text/html", "text/css", "text/javascript", "application/javascript"}


@dataclass(frozen=True)
class FileRoutes:
    """`/view` and `/upload`."""

    folders: Folders

    def routes(self) -> list[web.RouteDef]:
        """The routes, without the `/api` prefix."""
        return [
            web.get("/view", self._view),
            web.post("/upload/image", self._upload_image),
            web.post("/upload/mask", self._upload_mask),
        ]

    async def _view(self, request: web.Request) -> web.StreamResponse:
        try:
            path = self.folders.locate(request.query)
        except OSError:
            # Also a name that is too long for any file.
            return web.Response(status=404)
        except EscapeError:
            return web.Response(status=403)
        except ValueError:
            return web.Response(status=400)
        # A header has one line.
        name = "".join(c if c.isprintable() else "_" for c in path.name)
        headers = {"Content-Disposition": f'filename="{name}"'}
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
        return await self._upload(form, json.loads(str(form["original_ref"])))

    async def _upload(self, form: Any, original: dict[str, str] | None = None) -> web.Response:
        image, kind, subfolder = form.get("image"), form.get("type", "input"), form.get("subfolder")
        if not image:
            return web.Response(status=400)
        folder = self.folders.of(kind)
        if folder is None:
            raise ValueError(f"there is no folder of type {kind!r}")
        try:
            target = within(folder, subfolder or "")
            path = within(target, image.filename.lstrip("/"))
        except EscapeError:
            return web.Response(status=400)
        target.mkdir(parents=True, exist_ok=True)
        overwrite = form.get("overwrite") in ("true", "1")
        placed = await asyncio.to_thread(
            self._place, image.file.read(), path, overwrite=overwrite, original=original
        )
        return web.json_response({"name": placed.name, "subfolder": subfolder or "", "type": kind})

    def _place(
        self, content: bytes, path: Path, *, overwrite: bool, original: dict[str, str] | None
    ) -> Path:
        """Write an upload, a mask over the `original` that the client names; return its path.

        A mask for an original that is not there is answered like any other, and written nowhere.
        """
        placed = path if overwrite else free_path(path, content)
        if original is None:
            placed.write_bytes(content)
        else:
            with suppress(FileNotFoundError, EscapeError, ValueError):
                rendering.apply_mask(self.folders.locate(original), content, placed)
        return placed
