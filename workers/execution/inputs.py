"""Input files: fetched, placed on the ComfyUI server, and the workflow pointed at them."""

import base64
import binascii
import hashlib
import threading
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from tasks.errors import InvalidInputError
from tasks.request import shown
from tasks.workflow import Workflow
from workers.comfyui import ComfyUI
from workers.comfyui.model import FileRef
from workers.storage import ObjectStore

V = TypeVar("V")

# Placed files that are remembered, and sources of known content.
_MOST_REMEMBERED = 10_000
_LOCKS = 64


class Inputs:
    """Places the input files of jobs on one server, the same content only once. Thread-safe.

    A file lies in a folder that is named after its content, so that files of different content
    never meet, whatever their names.
    """

    def __init__(
        self,
        *,
        comfyui: ComfyUI,
        store: ObjectStore,
        max_bytes: int,
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            comfyui: the server.
            store: has the files that are named by `s3://`.
            max_bytes: size above which a file is refused.
        """
        self._comfyui = comfyui
        self._store = store
        self._max_bytes = max_bytes
        # A second job with the same file waits until the first one's is there; others hardly ever.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._remembering = threading.Lock()
        self._placed: dict[tuple[str, str], FileRef] = {}
        self._contents: dict[tuple[str, str], str] = {}

    def place(self, workflow: Workflow, inputs: Mapping[str, str]) -> dict[str, Any]:
        """Place each file and return the workflow that uses it where it is.

        Raises:
            InvalidInputError: a file is not used, cannot be fetched, is too large or is refused.
        """
        placed: dict[str, str] = {}
        for name, source in inputs.items():
            if not _is_used(workflow, name):
                raise InvalidInputError(
                    f"input {name!r}: no node of the workflow has it as a value"
                )
            _parts(name)
            with self._locks[hash(source) % _LOCKS]:
                file = self._place(name, source)
            placed[name] = f"{file.subfolder}/{file.filename}" if file.subfolder else file.filename
        return _with_names(workflow, placed)

    def _place(self, name: str, source: str) -> FileRef:
        version = self._version(name, source)
        digest = self._contents.get(version) if version else None
        if digest and (file := self._found(name, digest)):
            return file
        content, tag = self._fetch(name, source)
        digest = hashlib.sha256(content).hexdigest()
        if tag:
            self._remember(self._contents, (source, tag), digest)
        if file := self._found(name, digest):
            return file
        subfolder, filename = _place_of(name, digest)
        # Not over what is there: it is the same, and somebody may be reading it.
        file = self._comfyui.upload_image(filename, content, subfolder=subfolder)
        self._remember(self._placed, (name, digest), file)
        return file

    def _remember(self, known: dict[tuple[str, str], V], key: tuple[str, str], value: V) -> None:
        with self._remembering:
            # The newest are the last.
            known.pop(key, None)
            known[key] = value
            if len(known) > _MOST_REMEMBERED:
                del known[next(iter(known))]

    def _found(self, name: str, digest: str) -> FileRef | None:
        """Where a file lies that has been placed before, if it is still there."""
        file = self._placed.get((name, digest))
        return file if file is not None and self._comfyui.has(file) else None

    def _version(self, name: str, source: str) -> tuple[str, str] | None:
        """What tells whether a source has changed, where that can be asked; its size is checked."""
        if not source.startswith("s3:"):
            return None
        found = self._store.stat(self._key(name, source))
        if found is None:
            raise InvalidInputError(f"input {name!r}: there is no object {source}")
        self._check_size(name, found.size_bytes)
        return source, found.etag

    def _fetch(self, name: str, source: str) -> tuple[bytes, str]:
        """A source's content, and the tag of that where there is one."""
        tag = ""
        match source.partition(":")[0]:
            case "data":
                content = _data_url(name, source)
            case "s3":
                # It may have become larger by now.
                found = self._store.read(self._key(name, source), self._max_bytes + 1)
                if found is None:
                    raise InvalidInputError(f"input {name!r}: there is no object {source}")
                content, tag = found
            case _:
                raise InvalidInputError(
                    f"input {name!r}: expected a data: URL or s3://{self._store.bucket}/..., "
                    f"found {shown(source)}"
                )
        self._check_size(name, len(content))
        return content, tag

    def _key(self, name: str, source: str) -> str:
        # Not parsed as a URL: a key may hold whatever it likes, also ? and #.
        bucket, _, key = source.removeprefix("s3://").partition("/")
        if bucket != self._store.bucket:
            raise InvalidInputError(
                f"input {name!r}: this worker reads bucket {self._store.bucket!r} only, "
                f"not {bucket!r}"
            )
        if not key:
            raise InvalidInputError(f"input {name!r}: there is no object {source}")
        return key

    def _check_size(self, name: str, size: int) -> None:
        if size > self._max_bytes:
            raise InvalidInputError(
                f"input {name!r}: has {size:,} bytes, at most {self._max_bytes:,} are allowed "
                "(INPUT_MAX_BYTES)"
            )


def _place_of(name: str, digest: str) -> tuple[str, str]:
    *folders, filename = _parts(name)
    return "/".join(("comfyfleet", digest, *folders)), filename


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if not name.isprintable() or any(p in ("", ".", "..") or len(p.encode()) > 200 for p in parts):
        raise InvalidInputError(f"input {name!r}: is no name of a file")
    return parts


def _data_url(name: str, source: str) -> bytes:
    header, comma, data = source.partition(",")
    if not comma:
        raise InvalidInputError(f"input {name!r}: the data: URL has no comma before its data")
    if not header.endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return base64.b64decode(unquote_to_bytes(data), validate=True)
    except binascii.Error:
        raise InvalidInputError(f"input {name!r}: the data: URL is no valid base64") from None


def _is_used(workflow: Workflow, name: str) -> bool:
    return any(name in node["inputs"].values() for node in workflow.values())


def _with_names(workflow: Workflow, placed: Mapping[str, str]) -> dict[str, Any]:
    return {
        node_id: {
            **node,
            "inputs": {
                name: placed.get(value, value) if isinstance(value, str) else value
                for name, value in node["inputs"].items()
            },
        }
        for node_id, node in workflow.items()
    }
