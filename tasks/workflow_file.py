"""Finding the workflow in a file: JSON, or a PNG or WebP in which ComfyUI has embedded it."""

import base64
import binascii
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from tasks.embedded import PNG, is_webp, png_texts, webp_texts
from tasks.errors import InvalidRequestError, InvalidWorkflowError
from tasks.workflow_form import is_api_format, is_export

# What was executed comes first: it has the seeds that made the image.
_EMBEDDED = ("prompt", "workflow")
# Where JSON has it that is more than a workflow; of the graph that the UI makes it is `output`.
_WRAPPED = ("prompt", "output", "workflow")

_MOST_BYTES = 32 * 2**20
# A value in JSON can be a hundred times as large in memory.
_MOST_VALUES = 1_000_000
_MARKS = (b"{", b"[", b",")


def read_workflow(source: bytes | Path) -> dict[str, Any]:
    """The workflow in a file, in API format or as an export of the UI, whichever it has.

    Of an image that has both embedded it is the one in API format, which was executed. JSON may
    also be the body of `POST /prompt`, or another object that has the workflow as its `prompt`,
    `output` or `workflow`.

    Args:
        source: the file's content, or where it is.

    Raises:
        InvalidWorkflowError: there is no workflow in it; says what is missing.
        OSError: the file cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _read(file)
    return _read(BytesIO(source))


def is_data_url(value: object) -> bool:
    """Whether a workflow is given as a `data:` URL of its file."""
    return isinstance(value, str) and value[:5].lower() == "data:"


def read_data_url(url: str) -> dict[str, Any]:
    """The workflow in a file that is given as a `data:` URL.

    Raises:
        InvalidRequestError: the URL itself cannot be read.
        InvalidWorkflowError: there is no workflow in the file.
    """
    header, comma, data = url.partition(",")
    if not comma:
        raise InvalidRequestError("the workflow's data: URL has no comma before its data")
    content = unquote_to_bytes(data)
    if header.lower().endswith(";base64"):
        try:
            content = base64.b64decode(content, validate=True)
        except binascii.Error:
            raise InvalidRequestError("the workflow's data: URL is no valid base64") from None
    return read_workflow(content)


def _read(file: BinaryIO) -> dict[str, Any]:
    head = file.read(12)
    if head.startswith(PNG):
        return _embedded("PNG", png_texts(file, _EMBEDDED, _MOST_BYTES))
    if is_webp(head):
        return _embedded("WebP", webp_texts(file, _EMBEDDED, _MOST_BYTES))
    content = head + file.read(_MOST_BYTES)
    if len(content) > _MOST_BYTES:
        raise InvalidWorkflowError(
            f"the workflow's file is no image, and has more than {_MOST_BYTES:,} bytes"
        )
    found = _workflow_in(_json(content, "the workflow's file is no PNG, no WebP, and"))
    if found is None:
        raise InvalidWorkflowError("the workflow's file is JSON, but there is no workflow in it")
    return found


def _embedded(kind: str, texts: Mapping[str, bytes]) -> dict[str, Any]:
    """The workflow among the texts of an image."""
    if not texts:
        raise InvalidWorkflowError(
            f"the {kind} has no workflow embedded, neither as 'prompt' nor as 'workflow'"
        )
    for name in _EMBEDDED:
        if name in texts:
            found = _workflow_in(_json(texts[name], f"the {name!r} embedded in the {kind}"))
            if found is not None:
                return found
    raise InvalidWorkflowError(f"what is embedded in the {kind} is no workflow")


def _json(text: bytes, where: str) -> Any:
    # Counted before they are made.
    if sum(map(text.count, _MARKS)) > _MOST_VALUES:
        raise InvalidWorkflowError(f"{where} has more than {_MOST_VALUES:,} values")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidWorkflowError(f"{where} is no JSON that can be read") from None


def _workflow_in(value: object) -> dict[str, Any] | None:
    """The workflow that a value is, or has in it; None if there is none."""
    if not isinstance(value, dict):
        return None
    inside = [value, *(value.get(name) for name in _WRAPPED)]
    match value:
        case {"extra_data": {"extra_pnginfo": {"workflow": workflow}}}:
            inside.append(workflow)
    for one in inside:
        if isinstance(one, dict) and is_export(one):
            return one
        if isinstance(one, dict) and is_api_format(one):
            return {node_id: _as_asked(node) for node_id, node in one.items()}
    return None


def _as_asked(node: Any) -> Any:
    """A node without what the server noted in it, which may be NaN."""
    if not isinstance(node, dict):
        return node
    return {name: value for name, value in node.items() if name != "is_changed"}
