"""The test's end of the wire: requests and websockets, with nothing between them and the server."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import Condition, Thread
from typing import Any
from uuid import uuid4

import pytest
import requests
import websocket

Message = dict[str, Any]
Workflow = dict[str, Any]

DEADLINE_SECONDS = 20.0
BARS_RENDER = "tests/contract/custom_nodes/bars_render.py"


def eventually(condition: Callable[[], Any]) -> Any:
    """Poll until the condition holds; return its value."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


class Listener:
    """One websocket and everything that it has heard."""

    def __init__(self, url: str, client_id: str | None) -> None:
        self.messages: list[Message] = []
        self.closed = False
        self._read = 0
        self._changed = Condition()
        query = "" if client_id is None else f"?clientId={client_id}"
        self._socket = websocket.create_connection(
            f"{url.replace('http', 'ws', 1)}/ws{query}", timeout=DEADLINE_SECONDS
        )
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            while text := self._socket.recv():
                with self._changed:
                    self.messages.append(json.loads(text))
                    self._changed.notify_all()
        except (websocket.WebSocketException, OSError):
            pass
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait_for_count(self, count: int) -> None:
        """Wait until `count` messages have come, or a deadline."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self.messages) >= count or self.closed, DEADLINE_SECONDS
            )

    def take(self) -> list[Message]:
        """Return what has been heard so far, and forget it."""
        with self._changed:
            taken, self.messages, self._read = self.messages, [], 0
            return taken

    def wait_closed(self) -> None:
        """Wait until the server has ended or cut the connection."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.closed, DEADLINE_SECONDS), "still open"

    def until(self, wanted: Callable[[Message], bool]) -> list[Message]:
        """Wait for a message; return it and all that came before it since the last call."""
        with self._changed:

            def found() -> int | None:
                unread = range(self._read, len(self.messages))
                return next((at + 1 for at in unread if wanted(self.messages[at])), None)

            end = self._changed.wait_for(found, DEADLINE_SECONDS)
            assert end, f"only heard {self.messages[self._read :]}"
            heard, self._read = self.messages[self._read : end], end
            return heard

    def until_type(self, event: str) -> list[Message]:
        return self.until(lambda message: message["type"] == event)

    def until_done(self, prompt_id: str) -> list[Message]:
        """Wait for the last message that a prompt's own client gets."""
        done = {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}
        return self.until(lambda message: message == done)

    def until_idle(self) -> list[Message]:
        """Wait for the status of an empty queue, which every client gets."""
        return self.until(
            lambda message: (
                message["type"] == "status"
                and message["data"]["status"]["exec_info"]["queue_remaining"] == 0
            )
        )

    def send(self, message: Message) -> None:
        self._socket.send(json.dumps(message))

    def close(self) -> None:
        self._socket.close()
        self._thread.join(DEADLINE_SECONDS)
        # Closing alone leaves the socket of a connection open that the server has cut.
        self._socket.shutdown()  # type: ignore[no-untyped-call]


class ComfyUI:
    """One server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = requests.Session()

    @property
    def version(self) -> str:
        return str(self.get("/system_stats").json()["system"]["comfyui_version"])

    def get(self, path: str, **params: Any) -> requests.Response:
        return self.http.get(self.url + path, params=params, timeout=DEADLINE_SECONDS)

    @cached_property
    def _has_bars_render(self) -> bool:
        return "BarsRender" in self.get("/object_info/BarsRender").json()

    def need(self, workflow: Any) -> None:
        """Skip the test if the server lacks a node that the workflow has."""
        if "BarsRender" in str(workflow) and not self._has_bars_render:
            pytest.skip(
                f"the server lacks the node BarsRender: copy {BARS_RENDER} to custom_nodes/"
            )

    def post(self, path: str, **arguments: Any) -> requests.Response:
        if path == "/prompt":
            self.need(arguments.get("json"))
        return self.http.post(self.url + path, timeout=DEADLINE_SECONDS, **arguments)

    def submit(self, workflow: Workflow, **fields: Any) -> str:
        """Post a prompt that must be accepted; return its id."""
        response = self.post("/prompt", json={"prompt": workflow, **fields})
        assert response.status_code == 200, response.text
        return str(response.json()["prompt_id"])

    def finished(self, prompt_id: str) -> dict[str, Any]:
        """Wait for the history entry of a prompt."""
        entry = eventually(lambda: self.get(f"/history/{prompt_id}").json().get(prompt_id))
        assert isinstance(entry, dict)
        return entry

    def run(self, workflow: Workflow, **fields: Any) -> dict[str, Any]:
        """Post a prompt and wait for its history entry."""
        return self.finished(self.submit(workflow, **fields))

    def running(self, prompt_id: str) -> None:
        """Wait until a prompt is being executed."""
        eventually(lambda: any(item[1] == prompt_id for item in self.queue()["queue_running"]))

    def queue(self) -> dict[str, Any]:
        return dict(self.get("/queue").json())

    def upload(self, name: str, content: bytes, **form: str) -> requests.Response:
        return self.post("/upload/image", files={"image": (name, content)}, data=form)

    @contextmanager
    def listen(self, client_id: str | None = None) -> Iterator[Listener]:
        """Open a websocket and wait for its greeting."""
        listener = Listener(self.url, client_id)
        try:
            listener.until(lambda message: "sid" in message["data"])
            yield listener
        finally:
            listener.close()


def unique(prefix: str = "") -> str:
    """A name or an id that no other test uses."""
    return f"{prefix}{uuid4().hex[:12]}"


def any_seed() -> int:
    """A seed that has not been used, so that nothing comes from the cache."""
    return uuid4().int % 2**48


def bars(**inputs: Any) -> Workflow:
    """A `BarsRender` node: 3 steps of 20 ms unless told otherwise."""
    return {
        "class_type": "BarsRender",
        "inputs": {
            "seed": any_seed(),
            "seconds": 0.06,
            "steps": 3,
            "width": 64,
            "height": 48,
            "batch_size": 1,
            "mode": "ok",
            **inputs,
        },
    }


def colour(**inputs: Any) -> Workflow:
    """An `EmptyImage` node of a colour that no other test uses."""
    size = {"width": 64, "height": 48, "batch_size": 1}
    return {"class_type": "EmptyImage", "inputs": {**size, "color": any_seed() % 2**24, **inputs}}


def invert(source: str) -> Workflow:
    """An `ImageInvert` node."""
    return {"class_type": "ImageInvert", "inputs": {"image": [source, 0]}}


def save(source: str, prefix: str = "contract") -> Workflow:
    """A `SaveImage` node."""
    return {
        "class_type": "SaveImage",
        "inputs": {"images": [source, 0], "filename_prefix": prefix},
    }


def show(source: Any) -> Workflow:
    """A `PreviewAny` node."""
    return {"class_type": "PreviewAny", "inputs": {"source": source}}


def bars_and_save(prefix: str = "contract", **inputs: Any) -> Workflow:
    """The workflow of the recordings: node 1 renders, node 2 saves."""
    return {"1": bars(**inputs), "2": save("1", prefix)}


def types(messages: list[Message]) -> list[str]:
    """The types of messages, in order."""
    return [message["type"] for message in messages]


def remaining(messages: list[Message]) -> list[int]:
    """What the `status` messages say."""
    return [
        message["data"]["status"]["exec_info"]["queue_remaining"]
        for message in messages
        if message["type"] == "status"
    ]


def history_messages(entry: dict[str, Any]) -> dict[str, Any]:
    """The messages in a history entry by their type."""
    return dict(entry["status"]["messages"])
