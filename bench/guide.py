"""One job as ComfyUI's API guides show it (its websocket example), with boto3 after it."""

import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import websocket

from bench.model import BenchError, Workflow

_TIMEOUT_SECONDS = 120.0

Put = Callable[[str, bytes], None]
"""Stores bytes under a key."""


def do_job(server_url: str, workflow: Workflow, put: Put) -> str:
    """Run one workflow, store its images and return the prompt's id.

    Raises:
        BenchError: it made no image.
    """
    client_id = str(uuid.uuid4())
    ws = websocket.create_connection(
        f"ws{server_url.removeprefix('http')}/ws?clientId={client_id}", timeout=_TIMEOUT_SECONDS
    )
    try:
        body = {"prompt": workflow, "client_id": client_id}
        prompt_id = str(json.loads(_ask(f"{server_url}/prompt", body))["prompt_id"])
        while ended_prompt(ws.recv()) != prompt_id:
            pass
    finally:
        ws.close()
    history = json.loads(_ask(f"{server_url}/history/{prompt_id}"))[prompt_id]
    images = [image for out in history["outputs"].values() for image in out.get("images", ())]
    if not images:
        raise BenchError(f"prompt {prompt_id} made no image: {history['status']}")
    for image in images:
        content = _ask(f"{server_url}/view?{urlencode(image)}")
        put(f"guide/{prompt_id}/{image['filename']}", content)
    return prompt_id


def ended_prompt(message: str | bytes) -> str | None:
    """The prompt of which a websocket message says that it has ended."""
    if isinstance(message, bytes):
        # A preview image.
        return None
    told = json.loads(message)
    if told["type"] != "executing" or told["data"]["node"] is not None:
        return None
    return str(told["data"].get("prompt_id"))


def _ask(url: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data=data), timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
        return bytes(answer.read())
