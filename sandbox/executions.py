"""The log of what a stand-in ComfyUI has executed; unlike its history it outlives the server."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

FILE_NAME = "executions.jsonl"
"""The log's name in the server's directory, beside the folders that ComfyUI shows."""


@dataclass(frozen=True)
class Execution:
    """One execution of a prompt; times are seconds since the epoch."""

    prompt_id: str
    began: float
    ended: float | None = None
    """None while it runs, and for ever if the server was killed in it."""
    loads: tuple[str, ...] = ()
    """The models, `FOLDER/NAME`, that it loaded or began to load."""


class ExecutionLog:
    """A file to which a line is added when an execution begins, loads a model, or ends."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first line."""
        self._path = path

    @contextmanager
    def execution(self, prompt_id: str) -> Iterator[None]:
        """Write down that the block executes the prompt, however the block ends."""
        self._append("began", prompt_id)
        try:
            yield
        finally:
            self._append("ended", prompt_id)

    def loads(self, model: str) -> None:
        """Write down that the running prompt begins to load a model, named `FOLDER/NAME`."""
        self._append("loads", model)

    def read(self) -> list[Execution]:
        """All executions so far in the order in which they began."""
        if not self._path.exists():
            return []
        found: list[Execution] = []
        written, _, _ = self._path.read_text().rpartition("\n")
        for line in written.splitlines():
            event, what, at = json.loads(line)
            # A server executes one prompt at a time: what ends or loads is what began last.
            match event:
                case "began":
                    found.append(Execution(what, at))
                case "loads":
                    found[-1] = replace(found[-1], loads=(*found[-1].loads, what))
                case "ended":
                    found[-1] = replace(found[-1], ended=at)
        return found

    def counts(self) -> Counter[str]:
        """How often each prompt has begun."""
        return Counter(execution.prompt_id for execution in self.read())

    def _append(self, event: str, what: str) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([event, what, time.time()]) + "\n")
