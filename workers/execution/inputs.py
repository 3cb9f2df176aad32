"""Input files: fetched, placed on the ComfyUI server, and the workflow pointed at them."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from tasks.errors import InvalidInputError
from tasks.request import shown
from tasks.workflow import Workflow
from workers.comfyui import ComfyUI
from workers.storage import ObjectStore
from workers.storage.keys import job_folder


def place_inputs(
    workflow: Workflow,
    inputs: Mapping[str, str],
    job_id: str,
    *,
    comfyui: ComfyUI,
    store: ObjectStore,
    max_bytes: int,
) -> dict[str, Any]:
    """Place each file in a folder of the job's own and return the workflow that uses it there.

    Raises:
        InvalidInputError: a file is not used, cannot be fetched, is too large or is refused.
    """
    placed: dict[str, str] = {}
    for name, source in inputs.items():
        if not _is_used(workflow, name):
            raise InvalidInputError(f"input {name!r}: no node of the workflow has it as a value")
        content = fetch(name, source, store, max_bytes)
        # The job's folder keeps its files apart from other jobs' files of the same name.
        *folders, filename = _parts(name)
        subfolder = "/".join(("comfyfleet", job_folder("", "", job_id), *folders))
        file = comfyui.upload_image(filename, content, subfolder=subfolder, overwrite=True)
        placed[name] = f"{file.subfolder}/{file.filename}" if file.subfolder else file.filename
    return _with_names(workflow, placed)


def fetch(name: str, source: str, store: ObjectStore, max_bytes: int) -> bytes:
    """The content of an input file.

    Raises:
        InvalidInputError: the source is of no known kind, is not there or is too large.
    """
    match source.partition(":")[0]:
        case "data":
            content = _data_url(name, source)
        case "s3":
            content = _object(name, source, store, max_bytes)
        case _:
            raise InvalidInputError(
                f"input {name!r}: expected a data: URL or s3://{store.bucket}/..., "
                f"found {shown(source)}"
            )
    if len(content) > max_bytes:
        raise InvalidInputError(_too_large(name, len(content), max_bytes))
    return content


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


def _object(name: str, source: str, store: ObjectStore, max_bytes: int) -> bytes:
    # Not parsed as a URL: a key may hold whatever it likes, also ? and #.
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if bucket != store.bucket:
        raise InvalidInputError(
            f"input {name!r}: this worker reads bucket {store.bucket!r} only, not {bucket!r}"
        )
    size = store.size(key) if key else None
    if size is None:
        raise InvalidInputError(f"input {name!r}: there is no object {source}")
    if size > max_bytes:
        raise InvalidInputError(_too_large(name, size, max_bytes))
    return store.get(key) or b""


def _too_large(name: str, size: int, max_bytes: int) -> str:
    return (
        f"input {name!r}: has {size:,} bytes, at most {max_bytes:,} are allowed (INPUT_MAX_BYTES)"
    )


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
