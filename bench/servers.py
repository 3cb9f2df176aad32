"""A ComfyUI server as the benchmark looks at it: what it says is what is measured."""

import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import requests

from bench.figures import execution_of
from bench.model import BenchError, Execution, Workflow

_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.02
_TIMEOUT_SECONDS = 60.0


class Server:
    """One server. Not thread-safe."""

    def __init__(self, url: str) -> None:
        """Name it; nothing is opened yet."""
        self.url = url.rstrip("/")
        self._session = requests.Session()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def has_node(self, name: str) -> bool:
        """Whether it knows a node class."""
        return name in self._get(f"/object_info/{name}")

    def version(self) -> str:
        """Of ComfyUI."""
        return str(self._get("/system_stats")["system"]["comfyui_version"])

    def post(self, workflow: Workflow, client_id: str) -> str:
        """Queue a prompt; returns its id."""
        answer = self._post("/prompt", {"prompt": workflow, "client_id": client_id})
        return str(answer.json()["prompt_id"])

    def clear(self) -> None:
        """Stop what runs, and forget what waits and what is done."""
        self._post("/queue", {"clear": True})
        for item in self._get("/queue")["queue_running"]:
            self._post("/interrupt", {"prompt_id": item[1]})
        self._until(self._is_idle, "is not idle")
        self._post("/history", {"clear": True})

    def free(self) -> None:
        """Have it forget the models that it has loaded, and all results."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def executions(self, prompt_ids: Iterable[str]) -> list[Execution]:
        """When it executed these prompts, which have ended or are about to."""
        return [execution_of(self.url, one, self._entry(one)) for one in prompt_ids]

    def all_executions(self) -> list[Execution]:
        """When it executed what it remembers."""
        entries = self._get("/history")
        return [execution_of(self.url, one, entry) for one, entry in entries.items()]

    def _entry(self, prompt_id: str) -> Any:
        found: list[Any] = []

        def look() -> bool:
            found.extend(self._get(f"/history/{prompt_id}").values())
            return bool(found)

        self._until(look, f"has no history of prompt {prompt_id}")
        return found[0]

    def _is_idle(self) -> bool:
        return not any(self._get("/queue").values())

    def _until(self, ready: Callable[[], bool], trouble: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                raise BenchError(f"{self.url} {trouble} after {_PATIENCE_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)

    def _get(self, path: str) -> Any:
        answer = self._session.get(self.url + path, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, body: object) -> requests.Response:
        answer = self._session.post(self.url + path, json=body, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer
